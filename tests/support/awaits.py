"""Every `await` of a module as a place where a fault may strike: read from its source, and struck while it runs.

A function with an `await` is compiled once more with a call around each, under a name that says where it stands. The
call does nothing but for a task that carries a `Fault`.
"""

import ast
import asyncio
import contextvars
import importlib
import inspect
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any, Final

_AWAITED, _ENTERED = "__awaited__", "__entered__"


@dataclass(slots=True)
class Fault:
    """An error that one request meets at one `await` so many times, before or after the awaited thing is done."""

    site: str = ""
    error: BaseException = field(default_factory=Exception)
    after: bool = False
    times: int = 1
    steps: dict[str, Callable[[], None]] = field(default_factory=dict[str, Callable[[], None]])
    """Called at the first passage of these places, before all else; they may raise."""
    passed: list[str] = field(default_factory=list[str])
    """The places that were reached, each time again."""
    struck: int = 0

    def before(self, site: str) -> None:
        self.passed.append(site)
        if step := self.steps.pop(site, None):
            step()
        self._strike(site, after=False)

    def done(self, site: str) -> None:
        self._strike(site, after=True)

    def _strike(self, site: str, *, after: bool) -> None:
        if site == self.site and after == self.after and self.struck < self.times:
            self.struck += 1
            raise self.error


CARRIED: Final = contextvars.ContextVar[Fault | None]("CARRIED", default=None)
"""The fault of the request that this task works for."""


def sites(modules: Iterable[str]) -> list[str]:
    """The name of every `await`, `async with` and `async for` in these modules, in the order of the source."""
    return [site for name in modules for site in _instrumented(importlib.import_module(name))[1]]


@contextmanager
def instrumented(modules: Iterable[str]) -> Generator[None]:
    """While it is open, tasks that carry a fault meet it in these modules."""
    undo: list[tuple[FunctionType, CodeType]] = []
    for name in modules:
        module = importlib.import_module(name)
        code, _ = _instrumented(module)
        codes = {each.co_qualname: each for each in _codes(code)}
        vars(module)[_AWAITED], vars(module)[_ENTERED] = _awaited, _Entered
        for function in _functions(module):
            undo.append((function, function.__code__))
            function.__code__ = codes[function.__code__.co_qualname]
    try:
        yield
    finally:
        for function, code in undo:
            function.__code__ = code


@cache
def _instrumented(module: ModuleType) -> tuple[CodeType, list[str]]:
    file = Path(str(module.__file__))
    tree = ast.parse(file.read_text())
    marker = _Marker(module.__name__.removeprefix("worker."))
    marked = ast.fix_missing_locations(marker.visit(tree))
    return compile(marked, str(file), "exec", dont_inherit=True), marker.found


class _Marker(ast.NodeTransformer):
    """Puts a call around everything that is awaited."""

    def __init__(self, module: str) -> None:
        self.found: list[str] = []
        self._path = [module]
        self._seen: Counter[str] = Counter()

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        return self._within(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        return self._within(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        return self._within(node)

    def visit_Await(self, node: ast.Await) -> ast.AST:
        site = self._site(node.value)
        self.generic_visit(node)
        node.value = _call(_AWAITED, site, node.value)
        return node

    def visit_AsyncWith(self, node: ast.AsyncWith) -> ast.AST:
        named = [(item, self._site(item.context_expr)) for item in node.items]
        self.generic_visit(node)
        for item, site in named:
            item.context_expr = _call(_ENTERED, site, item.context_expr)
        return node

    def _within(self, node: Any) -> ast.AST:
        self._path.append(node.name)
        self.generic_visit(node)
        self._path.pop()
        return node

    def _site(self, awaited: ast.expr) -> str:
        called = ast.unparse(awaited.func if isinstance(awaited, ast.Call) else awaited)
        name = f"{'.'.join(self._path)}: {called}"
        self._seen[name] += 1
        self.found.append(name if self._seen[name] == 1 else f"{name} ({self._seen[name]})")
        return self.found[-1]


def _call(function: str, site: str, awaited: ast.expr) -> ast.Call:
    return ast.Call(ast.Name(function, ast.Load()), [ast.Constant(site), awaited], [])


async def _awaited(site: str, awaitable: Any) -> Any:
    fault = CARRIED.get()
    if fault is None:
        return await awaitable
    try:
        fault.before(site)
    except BaseException:
        if asyncio.iscoroutine(awaitable):
            awaitable.close()
        raise
    result = await awaitable
    fault.done(site)
    return result


class _Entered:
    """An asynchronous context manager; its fault strikes before it is entered, or once it was left."""

    def __init__(self, site: str, manager: Any) -> None:
        self.site, self.manager, self.fault = site, manager, CARRIED.get()

    async def __aenter__(self) -> Any:
        if self.fault:
            self.fault.before(self.site)
        return await self.manager.__aenter__()

    async def __aexit__(self, *raised: object) -> Any:
        swallowed = await self.manager.__aexit__(*raised)
        if self.fault and not (raised[0] and not swallowed):
            self.fault.done(self.site)
        return swallowed


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield from _codes(each)


def _functions(module: ModuleType) -> Iterator[FunctionType]:
    """All that the module defines; what is defined within a function comes with it."""
    for value in vars(module).values():
        if inspect.isclass(value) and value.__module__ == module.__name__:
            yield from _own(vars(value).values(), module)
    yield from _own(vars(module).values(), module)


def _own(values: Iterable[Any], module: ModuleType) -> Iterator[FunctionType]:
    for value in values:
        function = getattr(value, "__func__", value)
        plain = inspect.unwrap(function) if callable(function) else None
        if isinstance(plain, FunctionType) and plain.__code__.co_filename == module.__file__:
            yield plain
