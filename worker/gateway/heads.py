"""The head of an HTTP answer, mended where a parser would refuse it and its meaning is still plain.

aiohttp's parser is lenient with responses, yet some faults of common proxies end it. Each has one sensible
reading, so the head is put right before the parser sees it:

| in the head                             | is read as                            | source                      |
|-----------------------------------------|---------------------------------------|-----------------------------|
| Content-Length beside Transfer-Encoding | chunked                               | RFC 9112 6.3, rule 3        |
| equal Content-Lengths, in lines or list | one of them                           | RFC 9112 6.3, rule 5        |
| other Content-Lengths, or no number     | none: the body goes on to its end     | curl/curl#18921             |
| a length shorter than what came with it | none                                  | nodejs/llhttp#445           |
| `chunked`, and what came is no chunk    | none                                  |                             |
| a name with a space in or after it      | without that space; else not at all   | RFC 9112 5.1; nodejs/llhttp |
| a NUL or a lone CR in a value           | a space                               | RFC 9110 5.5                |
| a status line of another version        | HTTP/1.1                              |                             |
| interim answers (1xx), however many     | nothing                               | RFC 9110 15.2               |

A length in characters, or that of the compressed body, is the common fault (bestpractical/rt#419). Where the
framing had two readings, nobody knows where the next answer would begin, so such a connection is not kept.
A body whose framing breaks later on ends there: what came before is read.
"""

import re
from typing import Final, NamedTuple

from aiohttp.client_proto import ResponseHandler

MAX_HEAD_BYTES: Final = 256 * 1024
"""A head longer than this is handed on as it is; the parser has limits of its own."""
_END: Final = re.compile(rb"\r?\n\r?\n")
_LINE_END: Final = re.compile(rb"\r?\n")
_TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_INTERIM: Final = re.compile(rb"HTTP/1\.[01] 1(?!01)\d\d\b")
_STATUS_LINE: Final = re.compile(rb"HTTP/(\d(?:\.\d)?)[ \t]+(\d{3})(?:[ \t]+(.*))?", re.IGNORECASE | re.DOTALL)
_PLAIN_STATUS_LINE: Final = re.compile(rb"HTTP/1\.[01] \d{3}(?: [^ ].*| ?)", re.DOTALL)
_REFUSED: Final = re.compile(rb"\x00|\r(?!\n)")
_SIZE: Final = re.compile(rb"\d{1,18}")
_CHUNK: Final = re.compile(rb"[0-9a-fA-F]{1,16}[ \t]*(?:[;\r\n]|\Z)")
_FRAMING: Final = (b"content-length", b"transfer-encoding")

Field = tuple[bytes, bytes]


class Head(NamedTuple):
    """A head fit for the parser; `ambiguous` where its framing had two readings."""

    data: bytes
    ambiguous: bool


def mended(head: bytes, body: bytes = b"") -> Head:
    """The head with the faults of the table put right; the same bytes where it has none.

    `body` is what came of the body together with the head.
    """
    start, *lines = _LINE_END.split(head.rstrip(b"\r\n"))
    fields = [field for line in lines if (field := _field(line)) is not None]
    told = [field for field in fields if field[0].lower() in _FRAMING]
    framing, ambiguous = _framing(told, body)
    if (
        framing == told
        and _PLAIN_STATUS_LINE.fullmatch(start)
        and all(_TOKEN.fullmatch(line.partition(b":")[0]) for line in lines)
        and not _REFUSED.search(head)
    ):
        return Head(head, ambiguous=False)
    others = [field for field in fields if field[0].lower() not in _FRAMING]
    text = b"\r\n".join([_status_line(start), *(b"%s: %s" % field for field in (*others, *framing))])
    return Head(text + b"\r\n\r\n", ambiguous)


def _framing(told: list[Field], body: bytes) -> tuple[list[Field], bool]:
    """The fields that say where the body ends, and whether they had two readings."""
    lengths = [value for name, value in told if name.lower() == b"content-length"]
    encodings = [field for field in told if field[0].lower() != b"content-length"]
    if any(b"chunked" in value.lower() for _, value in encodings):
        is_chunked = not body or _CHUNK.match(body) is not None
        return (encodings, bool(lengths)) if is_chunked else ([], True)
    sizes = {size.strip() for value in lengths for size in value.split(b",")}
    if not lengths:
        return told, False
    size = sizes.pop()
    if sizes or not _SIZE.fullmatch(size) or body[int(size) :].strip(b"\x00 \t\r\n"):
        return encodings, True
    return (told, False) if lengths == [size] else ([*encodings, (b"Content-Length", size)], False)


def _status_line(line: bytes) -> bytes:
    found = _STATUS_LINE.fullmatch(line)
    if found is None:
        return line
    version, status, reason = found.groups(b"")
    return b"HTTP/%s %s %s" % (version if version in (b"1.0", b"1.1") else b"1.1", status, _REFUSED.sub(b" ", reason))


def _field(line: bytes) -> Field | None:
    name, _, value = line.partition(b":")
    name = name.strip(b" \t")
    return (name, _REFUSED.sub(b" ", value).strip(b" \t")) if _TOKEN.fullmatch(name) else None


class TolerantHandler(ResponseHandler):
    """aiohttp's connection, which mends each head and counts the answers that it was asked for."""

    uses = 0
    """Requests sent over this connection, the one under way included."""
    _head: bytearray | None = None
    """The part of a head that has come and is not whole yet; None while no head is due."""

    def set_response_params(self, *args: object, **options: object) -> None:
        self.uses += 1
        self._head = bytearray()
        super().set_response_params(*args, **options)  # pyright: ignore[reportArgumentType]  # handed on as given

    def data_received(self, data: bytes) -> None:
        if self._head is None:
            self._feed(data)
            return
        held, searched = self._head, len(self._head)
        held += data
        while end := _END.search(held, max(0, searched - 3)):
            searched = 0
            whole = bytes(held[: end.end()])
            del held[: end.end()]
            if not _INTERIM.match(whole):
                self._pass_on(whole, bytes(held))
                return
        if len(held) > MAX_HEAD_BYTES:
            self._flush()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._flush()
        super().connection_lost(exc)

    def _pass_on(self, whole: bytes, rest: bytes) -> None:
        """Hands on the head and what came behind it, one after the other: a fault in the body spares the head."""
        self._head = None
        head = mended(whole, rest)
        if head.ambiguous:
            self.force_close()
        self._feed(head.data)
        if rest:
            self._feed(rest)

    def _feed(self, data: bytes) -> None:
        """The parser forgets the body that it fails in, and its reader would never learn of the end."""
        super().data_received(data)
        if self.exception() is not None and self._payload is not None and not self._payload.is_eof():
            self._payload.feed_eof()

    def _flush(self) -> None:
        held, self._head = self._head, None
        if held:
            super().data_received(bytes(held))
