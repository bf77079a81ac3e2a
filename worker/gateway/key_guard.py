"""The API key, taken out of whatever a gateway sends back, plain or encoded.

Gateways quote the key of a refused call in messages, codes, ids and headers, and not every key looks like one.
So what arrives is compared with the key itself, before anything else reads it.
"""

import base64
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

STAND_IN: Final = b"[key]"
MIN_KEY_CHARS: Final = 8
"""A shorter key would be found in ordinary words."""


class KeyGuard:
    """Knows one key and its common encodings: Base64 at any offset, hexadecimal, percent and JSON escapes."""

    def __init__(self, key: str) -> None:
        self._forms = _forms(key.encode()) if len(key) >= MIN_KEY_CHARS else ()

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def clean(self, data: bytes) -> bytes:
        """The same bytes, or the same without the key."""
        if any(map(data.__contains__, self._forms)):
            for form in self._forms:
                data = data.replace(form, STAND_IN)
        return data

    def clean_headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        """The same for every value of a head."""
        values = list(headers.values())
        joined = "\n".join(values).encode("utf-8", "surrogateescape")
        if (cleaned := self.clean(joined)) is not joined:
            values = cleaned.decode("utf-8", "replace").split("\n")
        return dict(zip(headers, values, strict=True))


def _forms(key: bytes) -> tuple[bytes, ...]:
    spelt = key.hex(",")
    escaped = "\\u00" + spelt.replace(",", "\\u00"), "%" + spelt.replace(",", "%").upper()
    plain = [key, key[::-1], quote(key, safe="").encode(), spelt.replace(",", "").encode()]
    plain += [key.hex().upper().encode(), *(form.encode() for form in escaped)]
    based = [_inner(code(b"\x00" * offset + key), offset) for offset in range(3) for code in _BASE64]
    return tuple(dict.fromkeys([*plain, *based]))


_BASE64: Final = (base64.b64encode, base64.urlsafe_b64encode)
_SKIPPED: Final = (0, 2, 3)
"""Leading characters that hold bits of what stands before the key, by its offset within three bytes."""


def _inner(encoded: bytes, offset: int) -> bytes:
    """The characters that hold nothing but bits of the key; the last one or two may hold what follows it."""
    return encoded.rstrip(b"=")[_SKIPPED[offset] : -1]
