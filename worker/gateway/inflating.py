"""The bytes of an answer without their compression, told by the bytes themselves and not by their label.

Proxies label plain JSON as gzip, pass gzip on without its label, and compress twice. Streams of gzip and zlib
begin with two bytes that neither JSON nor an event can begin with, so their label is not needed. Only `deflate`
without zlib's head has no such sign; it is believed where the bytes do not look like text.
"""

import contextlib
import re
import zlib
from collections.abc import Iterator
from typing import Final

STEP_BYTES: Final = 256 * 1024
"""Inflated at once: a kilobyte of gzip may stand for a megabyte."""
MAX_LAYERS: Final = 3
_GZIP: Final = b"\x1f\x8b"
_ZLIB: Final = (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")
"""The beginnings of zlib's usual window of 32 KiB, one for each level (RFC 1950 2.2)."""
_GZIP_WBITS: Final = zlib.MAX_WBITS | 16
_TEXT: Final = re.compile(rb'[{\[][\s"{}\[\]]|[\s:]|da|ev|id|re|\xef\xbb|\xff\xfe')
"""The beginnings of a document or an event's line; deflated bytes rarely begin so."""


class InflateError(ValueError):
    """The bytes claim a compression that they do not have."""


class Inflater:
    """Turns pieces of a body, cut at any places, into what they stand for."""

    def __init__(self, coding: str = "", layers: int = MAX_LAYERS) -> None:
        self._coding = coding.strip().lower()
        self._layers = layers
        self._start = b""
        self._wbits = 0
        self._plain = layers == 0
        self._inner: Inflater | None = None
        self._stream = zlib.decompressobj()

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """The plain bytes of `piece`, in pieces of bounded size. Raises `InflateError`."""
        if self._plain:
            yield piece
        elif self._inner is not None:
            yield from self._inflate(piece, self._inner)
        else:
            self._start += piece
            if len(self._start) >= len(_GZIP):
                yield from self._begin()

    def end(self) -> Iterator[bytes]:
        """The bytes held back: too short to tell, or still inside of zlib."""
        held, self._start = self._start, b""
        if held:
            yield held
        if self._inner is not None:
            with contextlib.suppress(zlib.error):
                if rest := self._stream.flush():
                    yield from self._inner.feed(rest)
            yield from self._inner.end()

    def _begin(self) -> Iterator[bytes]:
        held, self._start = self._start, b""
        self._wbits = self._window(held)
        self._plain = self._wbits == 0
        if not self._plain:
            self._stream = zlib.decompressobj(self._wbits)
            inner = self._coding if self._wbits == _GZIP_WBITS else self._coding.replace("deflate", "", 1)
            self._inner = Inflater(inner, self._layers - 1)
        yield from self.feed(held)

    def _window(self, start: bytes) -> int:
        """Zlib's `wbits` for a body that starts so; 0 if it is not compressed."""
        if start.startswith(_GZIP):
            return _GZIP_WBITS
        if start.startswith(_ZLIB):
            return zlib.MAX_WBITS
        if "deflate" not in self._coding:
            return 0
        return 0 if _TEXT.match(start) else -zlib.MAX_WBITS

    def _inflate(self, piece: bytes, inner: "Inflater") -> Iterator[bytes]:
        while piece:
            try:
                plain = self._stream.decompress(piece, STEP_BYTES)
            except zlib.error:
                raise InflateError("the compressed body is broken") from None
            if plain:
                yield from inner.feed(plain)
            piece = self._stream.unconsumed_tail or self._next_member()

    def _next_member(self) -> bytes:
        """The rest after the end of one gzip member: another member, or padding that means nothing."""
        rest = self._stream.unused_data
        if not rest.startswith(_GZIP):
            return b""
        self._stream = zlib.decompressobj(self._wbits)
        return rest
