"""Markdown: tables, pages, and the texts that docstrings and models hold."""

import ast
import inspect
from collections.abc import Iterable
from datetime import timedelta
from enum import StrEnum
from itertools import pairwise
from typing import Any, Final, cast

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from worker.config.environment import EnvironmentSettings, variable

NOTICE: Final = "<!-- Generated from the code by `make docs`. Change the code instead: edits of this file are lost. -->"
_UNITS: Final = (("d", 86400), ("h", 3600), ("m", 60))


def page(title: str, *parts: str) -> str:
    """One page: notice, title, parts, with an empty line between them."""
    return "\n\n".join((NOTICE, f"# {title}", *(part.strip() for part in parts))) + "\n"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table. A `|` inside a cell is escaped."""
    names = tuple(head)
    lines = [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]
    return "\n".join([*lines, *(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows)])


def fenced(text: str, language: str = "text") -> str:
    return f"```{language}\n{text}\n```"


def one_line(text: str | None) -> str:
    return " ".join((text or "").split())


def member_docstrings(cls: type[StrEnum]) -> dict[str, str]:
    """The docstrings below the members of an enum; Python itself does not keep them."""
    (definition,) = ast.parse(inspect.getsource(cls)).body
    body = cast("ast.ClassDef", definition).body
    found: dict[str, str] = {}
    for statement, following in pairwise(body):
        if isinstance(statement, ast.Assign) and isinstance(following, ast.Expr):
            target, text = cast("ast.Name", statement.targets[0]), cast("ast.Constant", following.value)
            found[target.id] = str(text.value)
    return found


def settings_table(model: type[EnvironmentSettings]) -> str:
    rows = [
        (f"`{variable(model, name)}`", default_text(field.default), one_line(field.description))
        for name, field in model.model_fields.items()
    ]
    return table(("variable", "default", "meaning"), rows)


def toml_table(model: type[BaseModel]) -> str:
    """The keys of one TOML table."""
    rows = [
        (
            f"`{name}`",
            "required" if field.is_required() else default_text(_toml_default(field)),
            one_line(field.description),
        )
        for name, field in model.model_fields.items()
    ]
    return table(("key", "default", "meaning"), rows)


def _toml_default(field: FieldInfo) -> Any:
    default: Any = None if field.default is PydanticUndefined else field.default
    return default if default is not None else ""


def default_text(value: Any) -> str:
    """A default value as somebody would write it in the environment; empty if there is none."""
    plain = _plain(value) if value is not None else ""
    return f"`{plain}`" if plain else ""


def _plain(value: Any) -> str:
    if value is None:
        return "deadline"
    if isinstance(value, timedelta):
        return duration(value)
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, dict):
        return ",".join(f"{name}={_plain(item)}" for name, item in cast("dict[str, Any]", value).items())
    if isinstance(value, tuple):
        return ",".join(map(_plain, cast("tuple[Any, ...]", value)))
    return str(value)


def duration(value: timedelta) -> str:
    """`90s`, `10m`, `24h` or `7d`: the largest unit that leaves a whole number above one."""
    seconds = round(value.total_seconds())
    for unit, size in _UNITS:
        if seconds > size and seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"
