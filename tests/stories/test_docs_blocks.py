"""Every block of a page that is code is run or read by some test: pages say nothing that nobody tried."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from docgen.chart import MINIMAL
from docgen.pages import DOCS
from support.command_line import ROOT

from worker.config.settings import load

_BLOCK: Final = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
README: Final = ROOT / "README.md"
PAGES: Final = (README, ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted(DOCS.rglob("*.md")))
RUN: Final = {
    "python": ("README.md", "clients.md", "enqueue.md", "results.md"),  # test_docs
    "toml": ("routes.md",),  # here
    "yaml": ("README.md",),  # here
    "js": ("enqueue.md",),  # tests/interop
}
"""Languages that run, and the pages whose blocks the tests know."""
READ: Final = ("console", "sh", "text", "mermaid", "promql")
"""Commands run or are parsed on every page (test_docs_commands, test_next_commands); the rest are forms, diagrams, and
the rules that promtool reads."""


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """Language and content."""
    yield from _BLOCK.findall(page.read_text(encoding="utf-8"))


def block(page: Path, language: str) -> str:
    (found,) = (content for written, content in blocks(page) if written == language)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_block_of_code_has_a_test(page: Path) -> None:
    known = {language for language, pages in RUN.items() if page.name in pages} | {*READ}

    assert {language for language, _ in blocks(page)} - known == set()


def test_the_routes_of_the_page_are_a_configuration(tmp_path: Path) -> None:
    file = tmp_path / "routes.toml"
    file.write_text(block(DOCS / "operate" / "routes.md", "toml"), encoding="utf-8")
    routing = load(config_file=file).routing

    assert list(routing.routes) == ["primary", "backup"]
    assert {"main", "spare"} <= routing.accounts.keys()
    assert routing.accounts["main"].models["gpt-5.4-mini"].requests_per_minute == 300


def test_the_readmes_values_are_those_that_the_chart_is_tested_with() -> None:
    assert block(README, "yaml") == MINIMAL.read_text(encoding="utf-8")
