"""Limits of a request: its names, its depth and its variety. Depth and variety are checked before decoding.

A reader of results stops at 200 levels of nesting (jiter, the JSON parser of pydantic), and a gateway echoes `tools`,
so a request that nests deeper could be answered and never be read. A document of many small values costs a decoder
up to thirty times its size in memory. Both are counted on the bytes, in C, before a decoder sees them.
"""

from datetime import timedelta
from itertools import accumulate
from typing import Final

from api_contracts.violations import Violation

MAX_ID_CHARS: Final = 128
"""Characters of a request id."""

MAX_NAME_CHARS: Final = 64
"""Characters of a tenant, a lane or another name."""

MAX_METADATA: Final = 16
"""Pairs of metadata that a request may carry."""

MAX_METADATA_CHARS: Final = 512
"""Characters of one value of metadata."""

MAX_DEPTH: Final = 128
"""Levels of arrays and objects in a request's body. An answer that echoes them stays under a reader's 200."""

MAX_VALUES: Final = 20_000
"""Entries of all arrays and objects of a request together: 6,000 messages. More would hold a worker for over 50 ms."""

MAX_KEYS: Final = 256
"""Keys of one object whose names the contract knows. Each unknown one costs a validator 8 microseconds."""

FARTHEST: Final = timedelta(days=7)
"""The longest time from now to a deadline, an eta or the time of enqueueing."""

_ENVELOPE_LEVELS: Final = 4
"""`[args, kwargs, embed]`, `args`, the envelope, and the body in it."""

_WINDOW: Final = 4 * 1024
_ALL_BUT_STRUCTURE: Final = bytes(set(range(256)) - set(b'"[]{},'))
_STEPS: Final = bytes.maketrans(b"{[]}", b"\x01\x01\xff\xff")
"""As signed bytes: one level down, one level up."""


def too_complex(document: bytes, field: str) -> Violation | None:
    """The violation of a JSON document that nests too deep or holds too many values; None without one.

    `document` may be any bytes. Bytes that are not JSON are counted as if they were. Takes time linear in its length.
    """
    if _opens_few(document) and document.count(b",") <= MAX_VALUES - MAX_DEPTH:
        return None
    outline = structure(document)
    if outline.count(b"[") + outline.count(b"{") + outline.count(b",") > MAX_VALUES:
        return Violation(field=field, message=f"must hold at most {MAX_VALUES} values in all", type="too_complex")
    if depth(outline) > MAX_DEPTH + _ENVELOPE_LEVELS:
        return Violation(field=field, message=f"must nest at most {MAX_DEPTH} levels deep", type="too_complex")
    return None


def _opens_few(document: bytes) -> bool:
    """Whether at most `MAX_DEPTH` brackets open in it. A search is a tenth of a count, which looks at every byte."""
    left = MAX_DEPTH
    for bracket in (b"[", b"{"):
        place = -1
        while left >= 0 and (place := document.find(bracket, place + 1)) >= 0:
            left -= 1
    return left >= 0


def structure(document: bytes) -> bytes:
    """Brackets and commas outside of strings: escaped backslashes and quotes go first, then all other characters."""
    plain = document.replace(rb"\\", b"").replace(rb"\"", b"") if b"\\" in document else document
    plain = plain.translate(None, delete=_ALL_BUT_STRUCTURE).replace(b'""', b"")  # most strings are empty by now
    outline, within = bytearray(), 0
    for start in range(0, len(plain), _WINDOW):  # the pieces of the whole would take many times its size
        pieces = plain[start : start + _WINDOW].split(b'"')
        outline += b"".join(pieces[within::2])
        within = (within + len(pieces) - 1) % 2
    return bytes(outline)


def depth(outline: bytes) -> int:
    """Levels of nesting of JSON of which `structure` is left."""
    return max(accumulate(memoryview(outline.translate(_STEPS, delete=b",")).cast("b")), default=0)
