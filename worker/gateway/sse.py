"""Server-sent events from bytes, without I/O.

The grammar is the WHATWG HTML standard's, section 9.2.6. An event has a size limit, so that no peer fills our
memory. Beyond the standard, gateways are read as they write, where JSON leaves no other reading:

| in the stream                                | is read as                          | reported in                |
|----------------------------------------------|-------------------------------------|----------------------------|
| no blank line after the last event           | the end of that event               |                            |
| no blank line between two events             | two events                          | rexxars/eventsource-parser#31 |
| a field within a field, `data: data: {}`     | the inner field                     | openclaw/openclaw#96497    |
| spaces around a field's name, capitals in it | the field                           |                            |
| lines of JSON of which only the first has    | one event                           | SamSaffron/term-llm#456    |
| its `data:`                                  |                                     |                            |
| a line of JSON where a field should be       | an event; `document` has it if it   |                            |
|                                              | goes on over the following lines    |                            |
"""

import re
from typing import Final, NamedTuple

import msgspec

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_INNER: Final = re.compile(rb"(?:(data|event): ?)++")
_OF_JSON: Final = (b'"', b"{", b"}", b"[", b"]")
"""The beginnings of a further line of pretty JSON. No field begins so."""
_WHOLE: Final = msgspec.json.Decoder(msgspec.Raw)
"""Tells whether a line is JSON, and builds nothing of it."""


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
        if line.lstrip().startswith(_OF_JSON):
            return self._more(line) if self._data else self._bare(line)
        return self._read_field(line)

    def _more(self, line: bytes) -> Event | None:
        """A line of JSON behind `data:`: the next event where the last one was whole."""
        event = self._dispatch() if self._is_whole() and line.lstrip().startswith(b"{") else None
        self._hold_data(line)
        return event

    def _is_whole(self) -> bool:
        """Whether the data in hand ends like an object. No JSON goes on with `{` behind that."""
        return bool(self._data) and self._data[-1][-16:].rstrip().endswith(b"}")

    def _hold_data(self, value: bytes) -> None:
        self._data.append(value)
        self._data_bytes += len(value) + 1

    def _bare(self, line: bytes) -> Event | None:
        if not line.lstrip().startswith(b"{"):
            return None
        try:
            _WHOLE.decode(line)
        except ValueError:
            self._document = bytearray(line + b"\n")
            return None
        return Event(self._name, line)

    def _read_field(self, line: bytes) -> Event | None:
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if inner := _INNER.match(value):
            field, value = inner[1], value[inner.end() :]
        field = field.strip().lower()
        event: Event | None = None
        if field == b"data":
            if self._is_whole() and value.lstrip().startswith((b"{", b"[DONE]")):
                event = self._dispatch()
            self._hold_data(value)
        elif field == b"event":
            if self._is_whole() and self._name:
                event = self._dispatch()
            self._name = value.decode(errors="replace").strip()
        return event

    def _dispatch(self) -> Event | None:
        event = Event(self._name, b"\n".join(self._data)) if self._data else None
        self._data, self._data_bytes, self._name = [], 0, ""
        return event
