"""Server-sent events from bytes, without I/O.

The grammar is the WHATWG HTML standard's, section 9.2.6. Two choices go beyond it: an event has a size limit,
so that no peer fills our memory, and `end` hands out an event whose closing blank line never came, because
some gateways leave it out after the last one and the JSON inside tells whether the event is whole.
"""

from typing import Final, NamedTuple

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
        events = [event for piece in pieces if (event := self._take(piece.rstrip(b"\r\n"))) is not None]
        self._hold(unfinished)
        return events

    def end(self) -> Event | None:
        """The event that was still open when the stream ended, if it has data."""
        if self._line:
            self._take(b"")
        return self._dispatch()

    def _hold(self, piece: bytes) -> None:
        self._line += piece
        if len(self._line) + self._data_bytes > self._max_event_bytes:
            raise EventTooLargeError(f"an event is larger than {self._max_event_bytes} bytes")

    def _take(self, piece: bytes) -> Event | None:
        """Finish the line in hand with `piece`, its last bytes."""
        self._hold(piece)
        line = bytes(self._line)
        self._line.clear()
        if self._at_start:
            self._at_start = False
            line = line.removeprefix(_BYTE_ORDER_MARK)
        if not line:
            return self._dispatch()
        self._read_field(line)
        return None

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
