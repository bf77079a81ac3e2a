"""Images and files in a request: their bytes, which say nothing of their tokens, and the tokens that they cost.

A gateway counts an image by its tiles of 512 pixels, after it was scaled to fit 2048 x 2048 and then to a shortest side
of 768 (OpenAI's guide to images and vision). Here only the head of an inlined image is decoded.
"""

import base64
import binascii
import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

BASE_TOKENS: Final = 85
"""Of every image, and all of one with `detail: low`."""
TILE_TOKENS: Final = 170
UNKNOWN_SIZE: Final = (1024, 1024)
"""Of an image that is named by its address or id."""
FILE_BYTES_PER_TOKEN: Final = 32
"""Of a file's base64: a page of a PDF has about 50 KB and 1,500 tokens."""

_HEAD_CHARS: Final = 64 * 1024
_TILE: Final = 512
_LARGEST: Final = 2048
_SHORTEST: Final = 768
_JPEG_SIZES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


@dataclass(frozen=True, slots=True)
class Media:
    """Inlined bytes of a body, and the tokens of all that is no text."""

    size: int = 0
    tokens: int = 0


NO_MEDIA: Final = Media()


def media_of(value: object) -> Media:
    """The media in the input of a request, at any depth. Takes time linear in the number of values."""
    found = list(_found(value))
    return Media(sum(each.size for each in found), sum(each.tokens for each in found)) if found else NO_MEDIA


def _found(value: object) -> Iterator[Media]:
    waiting = [value]
    while waiting:
        here = waiting.pop()
        if isinstance(here, list):
            waiting.extend(cast("list[object]", here))
        elif isinstance(here, dict):
            known = cast("Mapping[str, Any]", here)
            if known.get("type") in ("input_image", "computer_screenshot"):
                yield _image(known)
            elif known.get("type") == "input_file":
                data = str(known.get("file_data") or "")
                yield Media(len(data), len(data) // FILE_BYTES_PER_TOKEN)
            else:
                waiting.extend(known.values())


def _image(part: Mapping[str, Any]) -> Media:
    url = str(part.get("image_url") or "")
    inlined = len(url) if url.startswith("data:") else 0
    if part.get("detail") == "low":
        return Media(inlined, BASE_TOKENS)
    width, height = (_size_of(url) if inlined else None) or UNKNOWN_SIZE
    return Media(inlined, BASE_TOKENS + TILE_TOKENS * tiles(width, height))


def tiles(width: int, height: int) -> int:
    """Tiles of 512 pixels of an image, scaled as the gateway scales it; at least 1."""
    shrunk = min(1.0, _LARGEST / max(width, height, 1))
    shrunk *= min(1.0, _SHORTEST / max(1.0, min(width, height) * shrunk))
    return max(1, math.ceil(width * shrunk / _TILE) * math.ceil(height * shrunk / _TILE))


def _size_of(url: str) -> tuple[int, int] | None:
    """Width and height of an image in a data URL; None for a form that is not known, or a broken one."""
    encoded = url[:_HEAD_CHARS].partition(",")[2]
    try:
        head = base64.b64decode(encoded[: len(encoded) // 4 * 4])
        if head.startswith(b"\x89PNG"):
            return struct.unpack(">II", head[16:24])
        if head.startswith(b"GIF8"):
            return struct.unpack("<HH", head[6:10])
        if head.startswith(b"\xff\xd8"):
            return _jpeg_size(head)
    except (binascii.Error, struct.error, ValueError):
        return None
    return None


def _jpeg_size(head: bytes) -> tuple[int, int] | None:
    """From the frame header, behind segments of any length."""
    place = 2
    while place + 9 <= len(head) and head[place] == 0xFF:  # noqa: PLR2004  # the mark of a segment
        if head[place + 1] in _JPEG_SIZES:
            height, width = struct.unpack(">HH", head[place + 5 : place + 9])
            return width, height
        place += 2 + struct.unpack(">H", head[place + 2 : place + 4])[0]
    return None
