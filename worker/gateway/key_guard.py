"""The API key, taken out of whatever a gateway sends back, plain or encoded.

Gateways quote the key of a refused call in messages, codes, ids and headers, and not every key looks like one.
So what arrives is compared with the key itself, before anything else reads it.
"""

import base64
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Final

STAND_IN: Final = b"[key]"
MIN_KEY_CHARS: Final = 8
"""A shorter key would be found in ordinary words."""
SMALL: Final = 64 * 1024
"""Bytes of a text in which escapes of letters and digits are looked for as well: a larger one takes too long."""


class KeyGuard:
    r"""Knows one key: plain, reversed, in hexadecimal and in Base64 at any offset, each in any mix of escapes.

    Writers of JSON, URLs and HTML escape what they like: `\/`, `\u002b`, `%2f`, `&#47;`, and that once more where
    they quote a document. Of large texts only such escapes are known, and those of every character.
    """

    def __init__(self, key: str) -> None:
        guarded = key.encode() if len(key) >= MIN_KEY_CHARS else b""
        self._forms = _forms(guarded) if guarded else ()
        chars = set(b"".join(self._forms))
        self._escapes = tuple(_escapes(chars)) if guarded else ()
        self._usual_escapes = tuple(_escapes(_no_letters(chars))) if guarded else ()

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def clean(self, data: bytes) -> bytes:
        """The same bytes, or the same without the key."""
        if any(_holds(data, form) for form in self._forms):
            for form in self._forms:
                data = data.replace(form, STAND_IN)
        plain = self._unescaped(data)
        if plain is not data and (found := [form for form in self._forms if _holds(plain, form)]):
            return re.sub(b"|".join(map(_in_any_escapes, found)), STAND_IN, data)
        return data

    def clean_headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        """The same for every value of a head."""
        values = list(headers.values())
        joined = "\n".join(values).encode("utf-8", "surrogateescape")
        if (cleaned := self.clean(joined)) is not joined:
            values = cleaned.decode("utf-8", "replace").split("\n")
        return dict(zip(headers, values, strict=True))

    def _unescaped(self, data: bytes) -> bytes:
        """The text without the escapes of characters of the key; no valid document, but one to search in."""
        for sign, escapes in self._escapes if len(data) <= SMALL else self._usual_escapes:
            if _holds(data, sign):
                for escaped, char in escapes:
                    data = data.replace(escaped, char)
        return data


@lru_cache(maxsize=16)
def guard_of(key: str) -> KeyGuard:
    """The guard of a key, which is made once: its tables take longer than a look at an answer."""
    return KeyGuard(key)


def _holds(data: bytes, part: bytes) -> bool:
    """Whether the part stands in the data. Most data lacks most signs of escapes, and one byte is searched for fast."""
    return part[:1] in data and part in data


def _forms(key: bytes) -> tuple[bytes, ...]:
    spelt = [key.hex(","), key.hex(",").upper()]
    plain = [key, key[::-1], *(form.replace(",", "").encode() for form in spelt)]
    plain += [f"{sign}{form.replace(',', sign)}".encode() for form in spelt for sign in ("\\u00", "%")]
    based = [_inner(code(b"\x00" * offset + key), offset) for offset in range(3) for code in _BASE64]
    return tuple(dict.fromkeys([*plain, *based]))


_BASE64: Final = (base64.b64encode, base64.urlsafe_b64encode)
_SKIPPED: Final = (0, 2, 3)
"""Leading characters that hold bits of what stands before the key, by its offset within three bytes."""


def _inner(encoded: bytes, offset: int) -> bytes:
    """The characters that hold nothing but bits of the key; the last one or two may hold what follows it."""
    return encoded.rstrip(b"=")[_SKIPPED[offset] : -1]


_SIGNS: Final = (b"\\u00", b"\\x", b"%", b"&#")
"""The beginnings of escapes that name a character by its number."""


def _no_letters(chars: Iterable[int]) -> list[int]:
    return [char for char in chars if not chr(char).isalnum()]


def _escapes(chars: Iterable[int]) -> Iterator[tuple[bytes, list[tuple[bytes, bytes]]]]:
    """The escapes of these characters behind a common sign, to be taken away in this order: the doubled ones first."""
    escaped = [bytes([char]) for char in sorted(chars)]
    yield b"\\\\", [(b"\\\\", b"\\")] * 2
    yield b"%25", [(b"%25", b"%")] * 2
    for sign in _SIGNS:
        yield sign, [(sign + number, char) for char in escaped for number in _numbers(char, sign)]
    for char in (b"/", b'"'):
        yield b"\\" + char, [(b"\\" + char, char)]


def _numbers(char: bytes, sign: bytes) -> list[bytes]:
    lower, upper = char.hex().encode(), char.hex().upper().encode()
    if sign == b"&#":
        return [b"%d;" % ord(char), b"x%s;" % lower, b"x%s;" % upper, b"X%s;" % upper]
    return [lower] if lower == upper else [lower, upper]


_CHAR: Final = rb"(?:\\{0,4}%s|(?:\\{1,4}(?:u00|x)|%%(?:25){0,2})(?i:%s)|&#(?:%d|[xX](?i:%s));)"


def _in_any_escapes(form: bytes) -> bytes:
    """The expression of a form, in which each character may be escaped in its own way."""
    chars = [form[at : at + 1] for at in range(len(form))]
    return b"".join(_CHAR % (re.escape(char), char.hex().encode(), ord(char), char.hex().encode()) for char in chars)
