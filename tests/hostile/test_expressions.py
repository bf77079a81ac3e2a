"""Every regular expression of the project takes time linear in its text, whatever the text."""

import importlib
import inspect
import pkgutil
import re
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final, cast

import pytest

import api_contracts
import worker
from worker.telemetry.redaction import MAX_TEXT_CHARS, clean

SIZE: Final = 64 * 1024
MOST_S: Final = 1.0
"""Of CPU, for one expression on one text: linear ones take milliseconds, quadratic ones on 64 KiB many seconds."""
UNITS: Final = (
    "a", "1", " ", '"', "\\", '\\"', "-", ".", "://", "a://", "@", "{", "<", ":", "sk-", "Bearer ",
    '"a":', '"code": "', "limit: 1 ", "try again in 1", "model ", "(request id: a", "aA", "世", "data:", "0-",
)  # fmt: skip
ENDS: Final = ("", "!")
"""The end that makes an expression fail after it has nearly matched."""
METHODS: Final = frozenset({"match", "fullmatch", "search", "sub", "findall", "finditer"})


@dataclass(frozen=True, slots=True)
class Expression:
    """A compiled expression, and by which of its methods the project uses it."""

    pattern: re.Pattern[Any]
    methods: frozenset[str]

    def run(self, text: str) -> None:
        """Every use of it, on this text."""
        subject: Any = text.encode() if isinstance(self.pattern.pattern, bytes) else text
        for method in self.methods:
            match method:
                case "sub":
                    self.pattern.sub(lambda match: match[0], subject)
                case "finditer":
                    deque(cast("Any", self.pattern).finditer(subject), maxlen=0)
                case _:
                    getattr(self.pattern, method)(subject)


def modules(package: ModuleType) -> Iterator[ModuleType]:
    yield package
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not found.name.endswith("__main__") and ".devtools" not in found.name:
            yield importlib.import_module(found.name)


def patterns(value: Any, nesting: int = 3) -> Iterator[tuple[re.Pattern[Any], str]]:
    """Compiled expressions in a value, in its containers, and behind bound methods such as `search`, with its name."""
    if isinstance(value, re.Pattern):
        yield cast("re.Pattern[Any]", value), ""
    elif isinstance(owner := getattr(value, "__self__", None), re.Pattern):
        yield cast("re.Pattern[Any]", owner), value.__name__
    elif nesting and isinstance(value, dict | list | tuple | set | frozenset):
        members = cast("dict[Any, Any]", value).values() if isinstance(value, dict) else cast("list[Any]", value)
        for member in members:
            yield from patterns(member, nesting - 1)


def methods_of(name: str, source: str) -> frozenset[str]:
    """The uses of a module's own name; `pattern` is the name that its loops give to members of a table."""
    used = set(re.findall(rf"\b{name}\.(\w+)", source) or re.findall(r"\bpattern\.(\w+)", source))
    return frozenset(used & METHODS) or METHODS


def found_expressions() -> dict[str, Expression]:
    named: dict[str, Expression] = {}
    for module in (*modules(api_contracts), *modules(worker)):
        source = inspect.getsource(module)
        for name, value in vars(module).items():
            if not re.search(rf"^{name}\b.*=", source, re.MULTILINE):
                continue  # imported: it is found where it is made
            for number, (pattern, bound) in enumerate(patterns(value)):
                methods = frozenset({bound}) if bound else methods_of(name, source)
                named[f"{module.__name__}.{name}.{number}"] = Expression(pattern, methods)
    return named


EXPRESSIONS: Final = found_expressions()


def test_the_scan_finds_them() -> None:
    """In a plain name, in a tuple of pairs, and behind a bound method."""
    assert len(EXPRESSIONS) > 40
    for known, method in (
        ("worker.telemetry.redaction._SECRETS.2", "sub"),
        ("worker.failures.error_tables._MONEY.0", "search"),
        ("worker.gateway.repair._HALF_A_PAIR.0", "sub"),
    ):
        assert EXPRESSIONS[known].methods == {method}


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_no_text_makes_an_expression_slow(name: str) -> None:
    expression = EXPRESSIONS[name]
    for unit in UNITS:
        for end in ENDS:
            text = (unit * (SIZE // len(unit)))[: SIZE - len(end)] + end
            began = time.process_time()
            expression.run(text)
            assert time.process_time() - began < MOST_S, f"{unit!r}, then {end!r}"


@pytest.mark.parametrize("text", ["a" * 40_000, "://" * 20_000, "a://" * 15_000, "Bearer " * 9_000, "sk-" * 20_000])
def test_cleaning_a_text_costs_nothing(text: str) -> None:
    started = time.process_time()
    assert len(clean(text)) <= MAX_TEXT_CHARS + 3
    assert time.process_time() - started < 0.1


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("x" * 5000 + " redis://user:s3cr3t@host", "s3cr3t"),
        (" ".join(["word"] * 817) + " redis://user:s3cr3t-and-longer@host", "s3cr3t"),
        ("https://gateway.example.com/v1?api_key=s3cr3t rest", "s3cr3t"),
        ("redis://:s3cr3t@host:6379/0", "s3cr3t"),
        ("Authorization: Bearer     s3cr3t.token", "s3cr3t"),
        ("key sk-s3cr3t was refused", "s3cr3t"),
    ],
)
def test_secrets_are_still_cleaned_where_the_text_is_cut(text: str, secret: str) -> None:
    assert secret not in clean(text)
