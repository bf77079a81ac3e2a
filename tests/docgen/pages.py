"""Every generated file of `docs/`, and the chart's README, and how it is written."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from docgen.chart import chart_readme
from docgen.commands import commands_page
from docgen.contracts import (
    celery_page,
    contract_documents,
    contracts_page,
    errors_page,
    openai_page,
    request_page,
    result_page,
)
from docgen.operators import acl_page, alerts_page, config_file_page, metrics_page, settings_page, simulator_page
from docgen.runbook import runbook_index, runbook_pages

DOCS: Final = Path(__file__).parents[2] / "docs"
GENERATED: Final = ("reference", "runbook")
"""Directories that hold nothing but generated files."""

CHART_README: Final = Path("../helm/README.md")
"""The one generated page that is not below `docs/`: it is packaged with the chart."""

_REFERENCE: Final[dict[str, Callable[[], str]]] = {
    "acl": acl_page,
    "alerts": alerts_page,
    "celery": celery_page,
    "commands": commands_page,
    "config-file": config_file_page,
    "contracts": contracts_page,
    "errors": errors_page,
    "metrics": metrics_page,
    "openai": openai_page,
    "request": request_page,
    "result": result_page,
    "settings": settings_page,
    "simulator": simulator_page,
}


def rendered() -> dict[Path, str]:
    """Every generated file below `docs/`, as the code would write it now."""
    reference = {Path("reference") / f"{name}.md": render() for name, render in _REFERENCE.items()}
    documents = {Path("reference/contracts") / name: text for name, text in contract_documents().items()}
    runbook = {Path("runbook") / name: text for name, text in runbook_pages().items()}
    return (
        reference
        | documents
        | runbook
        | {
            Path("runbook/index.md"): runbook_index(),
            CHART_README: chart_readme(),
        }
    )


def present() -> dict[Path, str]:
    """Every generated file that is there now."""
    paths = (path for name in GENERATED for path in (DOCS / name).rglob("*") if path.is_file())
    found = {path.relative_to(DOCS): path.read_text(encoding="utf-8") for path in paths}
    readme = DOCS / CHART_README
    return found | ({CHART_README: readme.read_text(encoding="utf-8")} if readme.exists() else {})


def write() -> None:
    """Writes every generated file, and removes pages that the code no longer has."""
    pages = rendered()
    for path in present().keys() - pages.keys():
        (DOCS / path).unlink()
    for path, text in pages.items():
        (DOCS / path).parent.mkdir(parents=True, exist_ok=True)
        (DOCS / path).write_text(text, encoding="utf-8")
