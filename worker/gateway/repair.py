"""From bytes that are nearly JSON to a decoded document and bytes that are JSON.

What is JSON as it stands is never touched. What is not is read leniently and written anew:

| in the body                                   | becomes                       | reported in                 |
|-----------------------------------------------|-------------------------------|-----------------------------|
| a byte order mark, UTF-16                     | UTF-8 without one             | mindroom-ai/mindroom#1257   |
| NULs or a second document behind the first    | nothing                       | Wei-Shaw/sub2api#1471       |
| NaN, Infinity, numbers beyond a double        | null                          | dphnAI/sonar#183            |
| lone surrogates                               | U+FFFD                        | anthropics/claude-code#61301 |
| bytes that are not UTF-8                      | U+FFFD                        | RFC 3629, section 3         |
| raw control characters within strings         | their escapes                 | langchain-ai/langchainjs#5160 |
| members nested beyond what readers take       | null                          | pydantic/jiter, 200 levels  |
"""

import json
import math
import re
from typing import Final, LiteralString, NamedTuple

import orjson
from pydantic_core import from_json

from worker.gateway.members import MAX_CONTAINERS, MAX_DEPTH, nesting, shallow

SMALL_BYTES: Final = 64 * 1024
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_BLANK: Final = "\ufeff\x00 \t\r\n"
_SPARE_LEVELS: Final = 200 - MAX_DEPTH
_BLANK_BYTES: Final = _BLANK.encode()


class Document(NamedTuple):
    """A decoded document and its bytes, which are valid JSON: as they came, or written anew."""

    value: object
    raw: bytes


class Unreadable(NamedTuple):
    """The reason that a body is no document, in words of ours."""

    reason: LiteralString
    oversized: bool = False
    """It may be a document, and is one that nobody should have to read."""


TOO_MANY: Final = Unreadable("it has too many parts", oversized=True)


def read_json(body: bytes) -> Document | Unreadable:
    """The document that `body` begins with. Total, linear in time, and bounded in what it builds."""
    if _brackets(body) > MAX_CONTAINERS and nesting(body).too_much:
        return TOO_MANY
    try:
        return Document(parsed(body), body)
    except ValueError:
        if nesting(body).depth <= MAX_DEPTH:
            return _read_leniently(body)
    return _read_leniently(shallow(body.lstrip(_BLANK_BYTES)))


def parsed(body: bytes) -> object:
    """The value of the JSON. Raises ValueError if it is none, or nested deeper than its readers take.

    orjson takes half the time of jiter for a small body, and twelve times the size of a large one. jiter is what
    the client reads with. It stops at 200 levels, so a body within others tells whether it leaves some to spare.
    """
    if len(body) <= SMALL_BYTES and _brackets(body) <= MAX_DEPTH:
        return orjson.loads(body)
    value = from_json(b"[" * _SPARE_LEVELS + body + b"]" * _SPARE_LEVELS, allow_inf_nan=False)
    for _ in range(_SPARE_LEVELS):
        (value,) = value  # ValueError for a body that is no single document
    return value


def _brackets(body: bytes) -> int:
    """At least as many as there are objects and arrays."""
    return body.count(b"{") + body.count(b"[")


def _read_leniently(body: bytes) -> Document | Unreadable:
    if not body.strip(_BLANK_BYTES):
        return Unreadable("it is empty")
    if _brackets(body) > MAX_CONTAINERS:
        return TOO_MANY
    text = body.decode(json.detect_encoding(body.rstrip(b"\x00")), "replace").lstrip(_BLANK)
    try:
        value, end = _LENIENT.raw_decode(text)
        raw = _encoded(value, text[:end])
        return Document(parsed(raw), raw)
    except (ValueError, RecursionError):
        return Unreadable("it is not JSON")


def _encoded(value: object, text: str) -> bytes:
    """The document as valid JSON: its own text if nothing but what surrounds it was wrong."""
    raw = text.encode("utf-8", "surrogatepass")
    try:
        parsed(raw)
    except ValueError:
        written = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return _SURROGATE.sub("\ufffd", written).encode()
    return raw


def written(value: object) -> bytes:
    """A value of a document as JSON; numbers that orjson cannot write go the way of what is nearly JSON."""
    try:
        return orjson.dumps(value)
    except TypeError:
        document = _read_leniently(json.dumps(value).encode())
        return b"null" if isinstance(document, Unreadable) else document.raw


def _integer(digits: str) -> int | float | None:
    return int(digits) if len(digits) < 300 else None  # noqa: PLR2004  # a double ends near 1e308


def _number(text: str) -> float | None:
    value = float(text)
    return value if math.isfinite(value) else None


_LENIENT: Final = json.JSONDecoder(strict=False, parse_int=_integer, parse_float=_number, parse_constant=lambda _: None)
