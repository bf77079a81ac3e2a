"""Server-sent events from bytes, without I/O.

The grammar is the WHATWG HTML standard's, section 9.2.6. Three choices go beyond it. An event has a size
limit, so that no peer fills our memory. `end` hands out an event whose closing blank line never came, because
some gateways leave it out after the last one and the JSON inside tells whether the event is whole. And a line
that begins with `{` is no field but JSON that a gateway wrote into its own stream, mostly an error after its
first ping: whole on its line it is an event, else `document` holds everything from there on.
"""

from typing import Final, NamedTuple

import orjson

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


class Event(NamedTuple):
    """One dispatched event: its `event:` name ("" if none) and its `data:` lines joined by newlines."""

    name: str
    data: bytes


class EventTooLargeError(ValueError):
    """An event grew over the decoder's limit before it ended; the stream cannot be read further."""


class Decoder:
    """Turns a byte stream cut at any places into events, in time linear in its length.

    Lines end in LF, CR or CRLF. A byte order mark at the start, comments, `id:` and `retry:` are skipped.
    """

    def __init__(self, max_event_bytes: int) -> None:
        self._max_event_bytes = max_event_bytes
        self._line = bytearray()
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._name = ""
        self._at_start = True
        self._after_cr = False
        self._document: bytearray | None = None

    @property
    def document(self) -> bytes:
        """The JSON of several lines that stands where events should, as far as it has come."""
        return bytes(self._document or b"")

    def feed(self, chunk: bytes) -> list[Event]:
        """Every event that `chunk` completes, in order. Raises `EventTooLargeError`."""
        if self._after_cr and chunk:
            self._after_cr = False
            chunk = chunk.removeprefix(b"\n")
        if not chunk:
            return []
        self._after_cr = chunk.endswith(b"\r")
        pieces = chunk.splitlines(keepends=True)
        unfinished = b"" if pieces[-1].endswith((b"\n", b"\r")) else pieces.pop()
        events = [event for piece in pieces if (event := self._take(piece)) is not None]
        self._hold(unfinished)
        return events

    def end(self) -> Event | None:
        """The event that was still open when the stream ended, if it has data."""
        last = self._take(b"") if self._line else None
        return last or self._dispatch()

    def _hold(self, piece: bytes) -> None:
        held = self._line if self._document is None else self._document
        held += piece
        if len(held) + self._data_bytes > self._max_event_bytes:
            raise EventTooLargeError(f"an event is larger than {self._max_event_bytes} bytes")

    def _take(self, piece: bytes) -> Event | None:
        """Finish the line in hand with `piece`, its last bytes."""
        self._hold(piece)
        if self._document is not None:
            return None
        line = bytes(self._line).rstrip(b"\r\n")
        self._line.clear()
        if self._at_start:
            self._at_start = False
            line = line.removeprefix(_BYTE_ORDER_MARK)
        if not line:
            return self._dispatch()
        if line.lstrip().startswith(b"{") and not self._data:
            return self._bare(line)
        self._read_field(line)
        return None

    def _bare(self, line: bytes) -> Event | None:
        try:
            orjson.loads(line)
        except orjson.JSONDecodeError:
            self._document = bytearray(line + b"\n")
            return None
        return Event(self._name, line)

    def _read_field(self, line: bytes) -> None:
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data.append(value)
            self._data_bytes += len(line)
        elif field == b"event":
            self._name = value.decode(errors="replace")

    def _dispatch(self) -> Event | None:
        event = Event(self._name, b"\n".join(self._data)) if self._data else None
        self._data, self._data_bytes, self._name = [], 0, ""
        return event
