"""The README's tables, generated from the code they describe: `python tests/tables.py` rewrites them."""

import ast
import inspect
import re
from collections.abc import Callable, Iterable
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, cast

from pydantic import BaseModel, SecretStr

from api_contracts import ErrorCode, GenerationRequest
from support.acl_tables import acl
from support.celery_surface import CELERY_SURFACE
from support.oncall_tables import TABLES as ONCALL_TABLES
from worker.config.settings import Settings
from worker.devtools.simulator import fault_table

README: Final = Path(__file__).parents[2] / "README.md"
_MARK: Final = re.compile(r"<!-- table: (\w+) -->\n.*?<!-- end -->", re.DOTALL)


def envelope() -> str:
    rows = [
        (f"`{name}`", "required" if field.is_required() else _default(field.default), _one_line(field.description))
        for name, field in GenerationRequest.model_fields.items()
    ]
    return table(("field", "default", "meaning"), rows)


def errors() -> str:
    described = member_docstrings(ErrorCode)
    rows = [(f"`{code}`", _one_line(described[code.name])) for code in ErrorCode]
    return table(("code", "what to do"), rows)


def settings() -> str:
    rows = [
        (f"`WORKER_{name.upper()}`", _default(field.default), _one_line(field.description))
        for name, field in Settings.model_fields.items()
    ]
    return table(("variable", "default", "meaning"), rows)


def celery() -> str:
    return table(("of Celery", "works", "how"), CELERY_SURFACE)


TABLES: Final[dict[str, Callable[[], str]]] = {
    "envelope": envelope,
    "errors": errors,
    "settings": settings,
    "celery": celery,
    "acl": acl,
    "simulator": fault_table,
    **ONCALL_TABLES,
}


def rendered(readme: str) -> str:
    """The README with every table as the code would write it now."""
    return _MARK.sub(
        lambda found: f"<!-- table: {found[1]} -->\n\n{TABLES[found[1]]().strip()}\n\n<!-- end -->", readme
    )


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(tuple(head))}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def member_docstrings(cls: type[StrEnum] | type[BaseModel]) -> dict[str, str]:
    """Attribute docstrings, which Python itself forgets."""
    (definition,) = ast.parse(inspect.getsource(cls)).body
    assert isinstance(definition, ast.ClassDef)
    found: dict[str, str] = {}
    for statement, following in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(statement, ast.Assign) and isinstance(following, ast.Expr):
            target, text = statement.targets[0], following.value
            assert isinstance(target, ast.Name)
            assert isinstance(text, ast.Constant)
            found[target.id] = str(text.value)
    return found


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())


def _default(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, timedelta):
        return f"`{duration(value)}`"
    if isinstance(value, SecretStr):
        return f"`{value.get_secret_value()}`"
    if isinstance(value, dict):
        pairs = [f"{name}={_plain(item)}" for name, item in cast("dict[str, Any]", value).items()]
        return f"`{','.join(pairs)}`" if pairs else ""
    return f"`{value}`"


def _plain(value: Any) -> str:
    if value is None:
        return "deadline"
    return duration(value) if isinstance(value, timedelta) else str(value)


def duration(value: timedelta) -> str:
    seconds = round(value.total_seconds())
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds > size and seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


if __name__ == "__main__":
    README.write_text(rendered(README.read_text(encoding="utf-8")), encoding="utf-8")
