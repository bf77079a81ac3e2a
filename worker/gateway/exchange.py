"""One call under way: how far it got, until when it may go on, and the reading of its answer.

What came is read before anybody asks how it ended. An answer whose JSON is whole is an answer, even if its
last chunk is missing, its Content-Length is too large, or its connection was reset behind it.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, cast

import aiohttp
import httpx

from api_contracts.errors import ErrorCode
from worker.failures.failure import Failure, TransportKind, from_http, from_transport, invalid_response
from worker.gateway.answers import TOO_LARGE, Answer, is_event_stream, read_document, tells_its_kind, unusable
from worker.gateway.inflating import InflateError, Inflater
from worker.gateway.key_guard import KeyGuard
from worker.gateway.sessions import Phase, Progress
from worker.gateway.sse import Decoder, Event, EventTooLargeError
from worker.gateway.stream import StreamReader

MAX_ERROR_BYTES: Final = 64 * 1024  # an error that takes more to explain is told by its status
ERROR_S: Final = 5.0  # for the body of an error: it often says more than the status, but may never come
TAIL_S: Final = 0.5  # for what follows a terminal event: usually nothing, and nobody needs it
TAIL_BYTES: Final = 256 * 1024  # of that: read at once, so it must not keep other calls waiting
WHOLE_S: Final = 1.0  # of silence after a body that ends like a document: then it is read as it stands
STALE_S: Final = 2.0  # a peer that had closed a kept connection says so within a round trip, not later

LOST: Final = (OSError, aiohttp.ClientError)

_LOST_OR_TIME_UP: Final = {
    Phase.CONNECTING: (TransportKind.UNREACHABLE, TransportKind.CONNECT_TIMEOUT),
    Phase.SENDING: (TransportKind.UNREACHABLE, TransportKind.WRITE_TIMEOUT),
    Phase.WAITING: (TransportKind.RESET, TransportKind.TOTAL_TIMEOUT),
    Phase.READING: (TransportKind.CUT_SHORT, TransportKind.READ_TIMEOUT),
}


@dataclass(slots=True, kw_only=True)
class Exchange:
    """`silence_s` bounds the time between two pieces of an answer; None: only `deadline` does."""

    progress: Progress
    limit: asyncio.Timeout
    deadline: float
    silence_s: float | None
    max_bytes: int
    guard: KeyGuard
    on_event: Callable[[bytes], None]
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    _body: bytearray = field(default_factory=bytearray)
    _decoder: Decoder | None = None
    _stream: StreamReader | None = None

    async def read(self, response: httpx.Response) -> Answer | Failure:
        """The outcome of an answer whose head is here."""
        self.progress.phase = Phase.READING
        self.status = response.status_code
        self.headers = self.guard.clean_headers(response.headers)
        chunks = self._inflated(aiter(cast("httpx.AsyncByteStream", response.stream)))
        if not response.is_success:
            within_s = ERROR_S if self.silence_s is None else min(ERROR_S, self.silence_s)
            said = self.guard.clean(await self._rest(chunks, within_s=within_s))
            return from_http(self.status, self.headers, said)
        try:
            await self._read_head(chunks)
            if is_event_stream(self.headers.get("content-type", ""), bytes(self._body)):
                return await self._read_events(chunks)
            return await self._read_body(chunks)
        except EventTooLargeError:
            return unusable(TOO_LARGE, self.status)
        except InflateError:
            return self._salvaged() or invalid_response("it cannot be decoded", self.status)

    def broken(self, error: BaseException | None = None, *, time_up: bool = False) -> Answer | Failure:
        """The outcome of a call whose connection was lost, or whose time was up."""
        if isinstance(error, aiohttp.ClientResponseError):
            return replace(invalid_response("its HTTP head cannot be read", 0), http_status=None)
        lost = _LOST_OR_TIME_UP[self.progress.phase][time_up]
        if lost is TransportKind.RESET and self._was_stale():
            lost = TransportKind.STALE
        return self._salvaged() or replace(from_transport(lost), http_status=self.status or None)

    def _was_stale(self) -> bool:
        return self.progress.kept and now() - self.progress.sent < STALE_S

    def _salvaged(self) -> Answer | Failure | None:
        """The answer, or the upstream's own error, that had come before the connection broke."""
        outcome = self._told_by_events() if self._stream else self._told_by_body()
        is_none = isinstance(outcome, Failure) and outcome.code is ErrorCode.INVALID_RESPONSE
        return None if is_none else outcome

    def _told_by_body(self) -> Answer | Failure | None:
        return self._document() if self._body else None

    def _document(self) -> Answer | Failure:
        return read_document(self.guard.clean(bytes(self._body)), self.headers, self.status)

    def _told_by_events(self) -> Answer | Failure | None:
        """The outcome of the event that was open, or of the document that stood where events should."""
        if self._stream is None or self._decoder is None:
            return None
        last = self._decoder.end()
        if last is not None and (outcome := self._take(last, self._stream)) is not None:
            return outcome
        document = self.guard.clean(self._decoder.document)
        return self._stream.take_document(document) if document else None

    async def _inflated(self, pieces: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
        inflater = Inflater(self.headers.get("content-encoding", ""))
        async for piece in pieces:
            for plain in inflater.feed(piece):
                yield plain
        for plain in inflater.end():
            yield plain

    async def _next(self, chunks: AsyncIterator[bytes]) -> bytes:
        """The next piece of the answer, b"" after the last."""
        patience = self.deadline if self.silence_s is None else min(self.deadline, now() + self.silence_s)
        self.limit.reschedule(patience)
        await asyncio.sleep(0)  # what is here already suspends nobody: neither other calls nor the limit would run
        return await anext(chunks, b"")

    async def _rest(self, chunks: AsyncIterator[bytes], *, within_s: float, limit: int = MAX_ERROR_BYTES) -> bytes:
        """The part of the rest that comes in time. A later part changes nothing."""
        self.limit.reschedule(None)
        rest = bytearray()
        with contextlib.suppress(InflateError, *LOST):
            async with asyncio.timeout(within_s):
                while len(rest) < limit and (chunk := await anext(chunks, b"")):
                    rest += chunk
        return bytes(rest[:limit])

    async def _read_head(self, chunks: AsyncIterator[bytes]) -> None:
        """Reads until the body tells whether it is a stream of events; white space tells nothing, and is dropped."""
        blank_bytes = 0
        while not tells_its_kind(bytes(self._body)) and (chunk := await self._next(chunks)):
            self._hold(chunk)
            if self._body.isspace():
                blank_bytes += len(self._body)
                self._body.clear()
            if blank_bytes > self.max_bytes:
                raise EventTooLargeError

    def _hold(self, chunk: bytes) -> None:
        self._body += chunk
        if len(self._body) > self.max_bytes:
            raise EventTooLargeError

    async def _read_body(self, chunks: AsyncIterator[bytes]) -> Answer | Failure:
        while chunk := await self._next_unless_whole(chunks):
            self._hold(chunk)
        return self._document()

    async def _next_unless_whole(self, chunks: AsyncIterator[bytes]) -> bytes:
        """The next piece; b"" also where silence follows what reads as a whole answer."""
        if not self._body[-16:].rstrip().endswith(b"}"):
            return await self._next(chunks)
        piece = asyncio.ensure_future(self._next(chunks))
        try:
            await asyncio.wait({piece}, timeout=WHOLE_S)
            return b"" if not piece.done() and self._salvaged() is not None else await piece
        finally:
            piece.cancel()
            await asyncio.wait({piece})
            if not piece.cancelled():
                piece.exception()  # looked at, so that asyncio does not report it

    async def _read_events(self, chunks: AsyncIterator[bytes]) -> Answer | Failure:
        self._decoder = decoder = Decoder(self.max_bytes)
        self._stream = stream = StreamReader(self.headers, self.status, self.max_bytes, self.on_event)
        chunk, self._body = bytes(self._body), bytearray()
        while chunk:
            if (outcome := self._told(decoder.feed(chunk), stream)) is not None:
                return await self._to_the_end(chunks, outcome)
            chunk = await self._next(chunks)
        return self._told_by_events() or replace(from_transport(TransportKind.CUT_SHORT), http_status=self.status)

    async def _to_the_end(self, chunks: AsyncIterator[bytes], outcome: Answer | Failure) -> Answer | Failure:
        """The outcome, or the completed answer that follows it: that one was paid for, whatever was said before.

        Only a stream that is read to its end frees its connection.
        """
        rest = await self._rest(chunks, within_s=TAIL_S, limit=TAIL_BYTES)
        if _is_completed(outcome) or self._decoder is None or self._stream is None:
            return outcome
        with contextlib.suppress(EventTooLargeError):
            later = self._told(self._decoder.feed(rest), self._stream)
            return later if later is not None and _is_completed(later) else outcome
        return outcome

    def _told(self, events: list[Event], stream: StreamReader) -> Answer | Failure | None:
        """The first outcome that the events tell, unless a completed answer follows it."""
        first: Answer | Failure | None = None
        for event in events:
            outcome = self._take(event, stream)
            if outcome is not None and _is_completed(outcome):
                return outcome
            first = outcome if first is None else first
        return first

    def _take(self, event: Event, stream: StreamReader) -> Answer | Failure | None:
        return stream.take(Event(event.name, self.guard.clean(event.data)))


def _is_completed(outcome: Answer | Failure) -> bool:
    return isinstance(outcome, Answer) and outcome.status == "completed"


def now() -> float:
    """The clock of deadlines here: the loop's."""
    return asyncio.get_running_loop().time()
