"""Errors to strike with: those that some code of ours catches, and all that Python, the libraries and we may raise."""

import ast
import asyncio
import importlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from worker.storage.errors import ScriptError

LIBRARIES: Final = ("builtins", "asyncio", "ssl", "json", "orjson", "redis", "aiohttp", "httpx", "pydantic")
OURS: Final = ("worker", "api_contracts")
CANARY: Final = "canary-7c1e"
"""The text of each: a library's error may hold a prompt, and none may reach the log."""

STUBBORN: Final = (ScriptError("WRONGTYPE"), ValueError(CANARY), asyncio.CancelledError("of nobody"))


class UnprintableError(Exception):
    """An error whose text is one more error."""

    def __str__(self) -> str:
        raise ValueError(CANARY)


def caught(modules: Iterable[str]) -> list[BaseException]:
    """One of each kind that an `except` of these modules names, and of kinds that none names."""
    kinds: set[type[BaseException]] = {RuntimeError, AssertionError, RecursionError}
    for module in map(importlib.import_module, modules):
        tree = ast.parse(Path(str(module.__file__)).read_text())
        names = [node.type for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler) and node.type]
        for name in names:
            kinds.update(_named(module, name))
    return _one_of_each(kinds - {BaseException})


def every() -> list[BaseException]:
    """One of each kind that is loaded."""
    kinds = {kind for kind in _subclasses(Exception) if kind.__module__.startswith((*LIBRARIES, *OURS))}
    return _one_of_each(kinds | {asyncio.CancelledError})


def _named(module: ModuleType, name: ast.expr) -> tuple[type[BaseException], ...]:
    found: Any = eval(ast.unparse(name), vars(module))  # noqa: S307  # our own source
    return found if isinstance(found, tuple) else (found,)  # pyright: ignore[reportUnknownVariableType]  # of errors


def _one_of_each(kinds: Iterable[type[BaseException]]) -> list[BaseException]:
    made: list[BaseException] = [ExceptionGroup("some", [ValueError(CANARY)]), UnprintableError()]
    for kind in sorted(kinds, key=lambda kind: (kind.__module__, kind.__qualname__)):
        # Redis' own words about a refused write are logged.
        choices: tuple[tuple[Any, ...], ...] = (
            (("WRONGTYPE",),) if kind is ScriptError else ((CANARY,), (), (CANARY, b""))
        )
        for arguments in choices:
            with suppress(Exception):  # some want arguments of their own
                made.append(kind(*arguments))
                break
    return made


def _subclasses(kind: type[BaseException]) -> Iterator[type[BaseException]]:
    for each in kind.__subclasses__():
        yield each
        yield from _subclasses(each)
