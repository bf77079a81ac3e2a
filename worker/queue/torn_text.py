"""The envelope's own members in a text that is no JSON, or only the beginning or the end of some.

A body may have members of the same names: `metadata`, `tools` and prompts are the caller's. So depth decides: in
Celery's protocol, `[[envelope], {}, {}]`, the envelope's members are inside of three brackets, from either side.
"""

import re
from collections.abc import Iterator
from typing import Final

_DEPTH: Final = 3
_TOKENS: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[\[\]{}:]', re.DOTALL)
_FROM_BEHIND: Final = re.compile(rb'"[^"]*+(?:"\\[^"]*+)*+(?:"|\Z)|[\[\]{}:]')
"""The same in a reversed text: a backslash follows the quote that it escapes. A torn string takes all the rest."""

_BRACKETS: Final = {b"[": 1, b"{": 1, b"]": -1, b"}": -1}
_BEHIND: Final = {bracket: -step for bracket, step in _BRACKETS.items()}


def members(text: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Names and values of the envelope at the beginning of a text, as written; values are strings and objects."""
    yield from _pairs(list(_parts(text, _TOKENS, _BRACKETS)))


def members_from_behind(text: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Names and values of the envelope at the end of a text."""
    found = [part[::-1] for part in _parts(text[::-1], _FROM_BEHIND, _BEHIND)]
    yield from _pairs(found[::-1])


def _parts(text: bytes, tokens: re.Pattern[bytes], steps: dict[bytes, int]) -> Iterator[bytes]:
    """Strings, colons, and whole objects and lists among the envelope's members."""
    depth = began = 0
    for token in tokens.finditer(text):
        step = steps.get(token[0], 0)
        if depth == _DEPTH:
            if step > 0:
                began = token.start()
            elif not step:
                yield token[0]
        depth += step
        if depth == _DEPTH and step < 0:
            yield text[began : token.end()]
        if depth <= 0:
            return


def _pairs(parts: list[bytes]) -> Iterator[tuple[bytes, bytes]]:
    for name, colon, value in zip(parts, parts[1:], parts[2:], strict=False):
        if colon == b":" and name[:1] == b'"':
            yield name[1:-1], value
