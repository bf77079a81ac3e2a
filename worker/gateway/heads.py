"""The head of an HTTP answer, mended where a parser would refuse it and its meaning is still plain.

aiohttp's parser is lenient with responses, yet three faults of common proxies end it. Each has one sensible
reading, so the head is put right before the parser sees it:

| in the head                             | is read as                            | source                      |
|-----------------------------------------|---------------------------------------|-----------------------------|
| Content-Length beside Transfer-Encoding | chunked                               | RFC 9112 6.3, rule 3        |
| equal Content-Lengths, in lines or list | one of them                           | RFC 9112 6.3, rule 5        |
| a name with a space in or after it      | without that space; else not at all   | RFC 9112 5.1; nodejs/llhttp |

After the first fault nobody knows where the next answer would begin, so such a connection is not kept.
"""

import re
from typing import Final, NamedTuple

from aiohttp.client_proto import ResponseHandler

MAX_HEAD_BYTES: Final = 256 * 1024
"""A head longer than this is handed on as it is; the parser has limits of its own."""
_END: Final = re.compile(rb"\r?\n\r?\n")
_LINE_END: Final = re.compile(rb"\r?\n")
_TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_INTERIM: Final = re.compile(rb"HTTP/1\.[01] 1\d\d\b")


class Head(NamedTuple):
    """A head fit for the parser; `ambiguous` where its framing had two readings."""

    data: bytes
    ambiguous: bool


def mended(head: bytes) -> Head:
    """The head with the faults of the table put right; the same bytes where it has none."""
    first, *lines = _LINE_END.split(head.rstrip(b"\r\n"))
    fields = [field for line in lines if (field := _field(line)) is not None]
    lengths = [value for name, value in fields if name.lower() == b"content-length"]
    chunked = any(name.lower() == b"transfer-encoding" and b"chunked" in value.lower() for name, value in fields)
    sizes = {size.strip() for value in lengths for size in value.split(b",")}
    if chunked and lengths:
        fields = [field for field in fields if field[0].lower() != b"content-length"]
    elif len(sizes) == 1 and lengths != [size := sizes.pop()]:
        fields = [field for field in fields if field[0].lower() != b"content-length"]
        fields.append((b"Content-Length", size))
    elif len(fields) == len(lines) and all(_TOKEN.fullmatch(line.partition(b":")[0]) for line in lines):
        return Head(head, ambiguous=False)
    text = b"\r\n".join([first, *(b"%s: %s" % field for field in fields)])
    return Head(text + b"\r\n\r\n", ambiguous=chunked and bool(lengths))


def _field(line: bytes) -> tuple[bytes, bytes] | None:
    name, _, value = line.partition(b":")
    name = name.strip(b" \t")
    return (name, value.strip(b" \t")) if _TOKEN.fullmatch(name) else None


class TolerantHandler(ResponseHandler):
    """aiohttp's connection, which mends each head and counts the answers that it was asked for."""

    uses = 0
    """Requests sent over this connection, the one under way included."""
    _head: bytearray | None = None
    """What has come of a head that is not whole yet; None while no head is due."""

    def set_response_params(self, *args: object, **options: object) -> None:
        self.uses += 1
        self._head = bytearray()
        super().set_response_params(*args, **options)  # pyright: ignore[reportArgumentType]  # handed on as given

    def data_received(self, data: bytes) -> None:
        if self._head is None:
            super().data_received(data)
            return
        held = self._head
        held += data
        if end := _END.search(held):
            self._pass_on(bytes(held[: end.end()]), bytes(held[end.end() :]))
        elif len(held) > MAX_HEAD_BYTES:
            self._flush()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._flush()
        super().connection_lost(exc)

    def _pass_on(self, whole: bytes, rest: bytes) -> None:
        """Hands on one head; after an interim answer (1xx) another one follows."""
        head = mended(whole)
        if head.ambiguous:
            self.force_close()
        interim = _INTERIM.match(whole)
        self._head = bytearray() if interim else None
        super().data_received(head.data if interim else head.data + rest)
        if interim and rest:
            self.data_received(rest)

    def _flush(self) -> None:
        held, self._head = self._head, None
        if held:
            super().data_received(bytes(held))
