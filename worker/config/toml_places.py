"""Places of the keys of a TOML document, which its parser does not tell."""

import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any, Final, cast

Path = tuple[str, ...]

_PART: Final = r"""(?:[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*')"""
_KEY: Final = re.compile(rf"\s*({_PART}(?:\s*\.\s*{_PART})*)\s*=")
_TABLE: Final = re.compile(r"\s*\[([^\[\]]+)\]\s*(?:#.*)?$")
_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")


def lines_of(text: str) -> Mapping[Path, int]:
    """The line, from 1, of each table and each key that begins a line; lines within a long string may be among them."""
    found: dict[Path, int] = {}
    table: Path = ()
    for number, line in enumerate(text.splitlines(), 1):
        if header := _TABLE.match(line):
            table = _path(header[1])
            found.setdefault(table, number)
        elif key := _KEY.match(line):
            found.setdefault(table + _path(key[1]), number)
    return found


def line_of(path: Path, lines: Mapping[Path, int]) -> int:
    """The line of the key or table, else of the first within it, else of the nearest around it; 0: none is known."""
    within = [line for known, line in lines.items() if known[: len(path)] == path]
    around = [lines[path[:end]] for end in range(len(path), 0, -1) if path[:end] in lines]
    return lines.get(path) or min(within, default=0) or next(iter(around), 0)


def place_of(path: Path, lines: Mapping[Path, int]) -> str:
    """`line 7, routes.spare.order`; without the line where none is known."""
    dotted = ".".join(part if _BARE.fullmatch(part) else f'"{part}"' for part in path)
    line = line_of(path, lines)
    return f"line {line}, {dotted}" if line else dotted


def _path(dotted: str) -> Path:
    """The parts of a dotted key, quoted ones without their quotes."""
    try:
        return tuple(_nested(tomllib.loads(f"{dotted} = 0")))
    except tomllib.TOMLDecodeError:
        return ()


def _nested(document: Mapping[str, Any]) -> Iterator[str]:
    for name, value in document.items():
        yield name
        if isinstance(value, dict):
            yield from _nested(cast("dict[str, Any]", value))
