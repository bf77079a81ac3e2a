"""From bytes that are nearly JSON to bytes that are, and what they say.

What is JSON as it stands is never touched. In what is not, only what is wrong is written anew:

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
from collections.abc import Callable
from io import StringIO
from typing import Final, LiteralString, NamedTuple

from api_contracts.limits import depth, structure
from worker.gateway.members import MAX_DEPTH, SMALL_BYTES, decoded, document_end, shallow, value

MAX_CONTAINERS: Final = 400_000
"""Objects and arrays of an answer. Each takes a few hundred bytes when a consumer reads it."""
MAX_OF_DEEP: Final = 20_000
"""The same where some nest too deep: they are looked at one by one, and no request that nests so deep is ever sent."""

_BLANK: Final = b"\xef\xbb\xbf\xff\xfe\x00 \t\r\n"
_PLAIN: Final = bytes.maketrans(b"123456789E]} \t\r\n", b"000000000e,,,,,,")
_HUGE: Final = re.compile(rb"e0000*+,")
"""In what `_PLAIN` leaves of numbers: an exponent of three digits or more, but no part of an id or an image."""
_LONGEST_NUMBER: Final = 300
_BACKSLASH, _QUOTE = "\xff", "\xfe"
"""Stand for their escapes, so that every other quote begins or ends a string: UTF-8 has no such bytes."""
_CONTROLS: Final = re.compile(r"[\x00-\x1f][\x00-\x1f]*+")
_NO_NUMBER: Final = re.compile(r"NaN|Infinity|-Infinity")
_MAYBE_HUGE: Final = re.compile(r"[-\d](?<![\w.].)(?:[\d.]*+[eE]\+?\d{3,}+|\d{299}[\d.]*+(?:[eE][+-]?\d++)?)")
_HALF_A_PAIR: Final = re.compile(
    r"\\u[dD][89abAB][\da-fA-F]{2}(?!\\u[dD][c-fC-F][\da-fA-F]{2})"
    r"|(?<!\\u[dD][89abAB][\da-fA-F]{2})\\u[dD][c-fC-F][\da-fA-F]{2}"
)
_BYTES_A_FAULT: Final = 40
"""One such number or control character in so many bytes is mended: an infinite probability of a token takes more."""
_SOME_LOST, _BYTES_A_LOSS = 32 * 1024, 8
"""So many bytes may be no UTF-8, and one in so many: U+FFFD, which stands for each, has three."""


Mend = Callable[[str], str]


class Document(NamedTuple):
    """The bytes of a document, which are valid JSON, as they came or mended, and as much of its value as is read."""

    value: object
    raw: bytes


class Unreadable(NamedTuple):
    """The reason that a body is no document, in words of ours."""

    reason: LiteralString
    oversized: bool = False
    """It may be a document, and is one that nobody should have to read."""


TOO_MANY: Final = Unreadable("it has too many parts", oversized=True)
_NOT_JSON: Final = Unreadable("it is not JSON")


def read_json(body: bytes) -> Document | Unreadable:
    """The document that `body` begins with. Total, linear in time, and bounded in what it builds."""
    if body.count(b"{") + body.count(b"[") > MAX_DEPTH:
        outline = structure(body)
        containers = outline.count(b"{") + outline.count(b"[")
        if containers > MAX_CONTAINERS:
            return TOO_MANY
        if depth(outline) > MAX_DEPTH:
            body = shallow(body.lstrip(_BLANK)) if containers <= MAX_OF_DEEP else body
            if depth(structure(body)) > MAX_DEPTH:
                return _NOT_JSON
    return _sound(body) or _mended(body)


def _sound(body: bytes) -> Document | None:
    """The document, if it is JSON in UTF-8 whose numbers are finite."""
    try:
        if len(body) <= SMALL_BYTES:
            return Document(decoded(body), body)
        if _may_be_huge(body) or not (body.isascii() or body.decode()):
            return None
        return Document(value(body), body)
    except ValueError:
        return None


def _may_be_huge(body: bytes) -> bool:
    """Whether a number may be beyond a double: has an exponent of three digits, or very many digits."""
    plain = body.translate(_PLAIN, delete=b"+")
    return _HUGE.search(plain) is not None or b"0" * _LONGEST_NUMBER in plain


def _mended(body: bytes) -> Document | Unreadable:
    try:
        text = _written_anew(body)
        raw = text[: document_end(text)]
        return Document(value(raw), raw)
    except ValueError:
        return _NOT_JSON if body.strip(_BLANK) else Unreadable("it is empty")


def _written_anew(body: bytes) -> bytes:
    """The body in UTF-8, with what is wrong within strings and between them written anew.

    Raises ValueError for one that is wrong throughout: each fault takes its time.
    """
    utf_8 = _in_utf_8(body)
    text = utf_8.decode("latin-1")  # a character for each byte
    text = text.replace("\\\\", _BACKSLASH).replace('\\"', _QUOTE)
    if "\\u" in text:
        text = _HALF_A_PAIR.sub(r"\\ufffd", text)
    text = _replaced(text, _CONTROLS, within=_escaped)
    text = _replaced(text, _NO_NUMBER, between=lambda _: "null")
    if _may_be_huge(utf_8):
        text = _replaced(text, _MAYBE_HUGE, between=lambda number: number if _is_finite(number) else "null")
    return text.replace(_QUOTE, '\\"').replace(_BACKSLASH, "\\\\").encode("latin-1")


def _in_utf_8(body: bytes) -> bytes:
    said = body.decode(json.detect_encoding(body.rstrip(b"\x00")), "replace")
    if said.count("\ufffd") > _SOME_LOST + len(body) // _BYTES_A_LOSS:
        raise ValueError
    return said.encode().lstrip(_BLANK)


def _replaced(text: str, pattern: re.Pattern[str], *, within: Mend = str, between: Mend = str) -> str:
    """The text with what is found within strings and between them replaced. Raises ValueError if that is too much."""
    anew, position, inside, left = StringIO(), 0, False, 1000 + len(text) // _BYTES_A_FAULT
    for found in pattern.finditer(text):
        start, end = found.span()
        inside ^= text.count('"', position, start) % 2 == 1
        left -= end - start if inside else not text[start].isspace()
        if left < 0:
            raise ValueError
        anew.write(text[position:start])
        anew.write((within if inside else between)(found[0]))
        position = end
    return anew.getvalue() + text[position:] if position else text


def _escaped(controls: str) -> str:
    return "".join(f"\\u{ord(control):04x}" for control in controls)


def _is_finite(number: str) -> bool:
    return len(number) < _LONGEST_NUMBER and math.isfinite(float(number))
