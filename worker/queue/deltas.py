"""Token deltas on their way to whoever watches: each event of a streamed call, appended to the request's own stream.

Entry ids are `<attempt>-<n>`, given by us. That makes an append safe to repeat after a lost reply, keeps a worker
that lost its lease from writing into its successor's stream (its ids are smaller, and Redis refuses them), and lets a
reader resume from the last id it saw. The last entry, written by the ledger with the result, has Redis' own id, which
is larger than any of these.

A watcher may miss events; a result waits for none. So what waits here is bounded in bytes, and a finished request
waits for its own last event alone, for a second at most. Where events are missing, an entry `gap` says so.
"""

import asyncio
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import msgspec
import orjson
import redis.asyncio
from redis.exceptions import ReadOnlyError, RedisError

from worker.storage.connection import SOCKET_TIMEOUT_S

APART_S: Final = 0.005
"""Between two round trips: a hundred streams at once share one, and an event that comes alone leaves at once."""

BATCH_BYTES: Final = 256 * 1024
"""Of one round trip: on a slow link it ends soon, and the events of a finished request come next."""

WAITING_BYTES: Final = 8 * 1024 * 1024
"""The limit of events that wait in one process; further ones are dropped."""

STREAM_BYTES: Final = 16 * 1024 * 1024
"""The limit of one attempt's stream; further events are dropped."""

PATIENCE_S: Final = 1.0
"""The longest wait of a result for its own last event."""

LONGEST: Final = 20_000
"""Entries kept per stream; a response has a few thousand events."""

KEPT_MS: Final = 3_600_000
"""After the last event, should no end ever come."""

ENDED_KEPT_MS: Final = 600_000
"""After the end: the result has all, and a reader that lost its connection comes back within minutes."""

_ENTRY_BYTES: Final = 128
"""The cost of an entry beside its data."""

_TERMINAL: Final = frozenset({"response.completed", "response.incomplete", "response.failed"})
"""Not relayed: the result says the same, and may be large."""


class Entry(NamedTuple):
    """One event under its entry id."""

    id: str
    kind: str
    data: bytes

    @property
    def size(self) -> int:
        return len(self.data) + _ENTRY_BYTES


@dataclass(eq=False, slots=True)
class Deltas:
    """The events of one attempt, on their way to one stream."""

    relay: "DeltaRelay"
    stream: str
    attempt: int
    waiting: deque[Entry] = field(default_factory=deque[Entry])
    missed: bool = False
    """Whether events were dropped since the last entry; the reader is told before the next one."""
    _number: int = 0
    _bytes: int = 0
    """Of all events so far."""

    def restarted(self, code: str | None) -> None:
        """Tells readers to forget what came so far: an earlier attempt was cut short."""
        self.missed = False
        self._append("restarted", orjson.dumps({"attempt": self.attempt, "code": code}))

    def event(self, data: bytes) -> None:
        """Takes the data of one server-sent event, as the gateway wrote it; drops it where too much is on its way."""
        kind = _kind(data)
        if kind in _TERMINAL:
            return
        if self._bytes + len(data) > STREAM_BYTES or not self.relay.has_room(len(data)):
            self.missed = True
            return
        self._tell_gap()
        self._append(kind, data)

    async def flushed(self) -> None:
        """Returns when all that was appended is sent or given up, after PATIENCE_S at the latest."""
        self._tell_gap()
        await self.relay.flushed(self)

    def _tell_gap(self) -> None:
        if self.missed:
            self.missed = False
            self._append("gap", orjson.dumps({"attempt": self.attempt}))

    def _append(self, kind: str, data: bytes) -> None:
        self._number += 1
        entry = Entry(f"{self.attempt}-{self._number}", kind, data)
        self._bytes += entry.size
        self.relay.append(self, entry)


@dataclass(slots=True)
class DeltaRelay:
    """Appends what gathers, many streams at once and each in its turn; finished requests come first."""

    client: redis.asyncio.Redis
    _streams: dict[Deltas, None] = field(default_factory=dict[Deltas, None])
    """Those with entries that wait, the longest waiting first."""
    _hurried: set[Deltas] = field(default_factory=set[Deltas])
    _under_way: set[Deltas] = field(default_factory=set[Deltas])
    _bytes: int = 0
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _sent: asyncio.Event = field(default_factory=asyncio.Event)
    """Set at the end of the round trip that is under way, or of the next one."""

    def open(self, stream: str, attempt: int) -> Deltas:
        return Deltas(self, stream, attempt)

    def has_room(self, size: int) -> bool:
        return self._bytes + size <= WAITING_BYTES

    def append(self, deltas: Deltas, entry: Entry) -> None:
        deltas.waiting.append(entry)
        self._streams[deltas] = None
        self._bytes += entry.size
        self._news.set()

    async def flushed(self, deltas: Deltas) -> None:
        """Returns when these deltas are sent, or given up after PATIENCE_S."""
        self._hurried.add(deltas)
        try:
            async with asyncio.timeout(PATIENCE_S):
                while deltas in self._streams or deltas in self._under_way:
                    await self._sent.wait()
        except TimeoutError:
            self._drop(deltas)
        finally:
            self._hurried.discard(deltas)

    async def pump(self) -> None:
        """Sends what gathers, for as long as the process lives."""
        sent_at = 0.0
        while True:
            await self._news.wait()
            self._news.clear()
            await asyncio.sleep(max(0.0, sent_at + APART_S - time.monotonic()))
            while self._streams:
                batch = self._next_batch()
                self._under_way = {deltas for deltas, _ in batch}
                await self._send(batch)
                self._under_way = set()
                sent, self._sent = self._sent, asyncio.Event()
                sent.set()
            sent_at = time.monotonic()

    def _next_batch(self) -> list[tuple[Deltas, Entry]]:
        batch: list[tuple[Deltas, Entry]] = []
        size = 0
        for deltas in [*(self._hurried & self._streams.keys()), *self._streams]:
            while deltas.waiting and size < BATCH_BYTES:
                entry = deltas.waiting.popleft()
                batch.append((deltas, entry))
                size += entry.size
            self._streams.pop(deltas, None)
            if deltas.waiting:
                self._streams[deltas] = None
            if size >= BATCH_BYTES:
                break
        self._bytes -= size
        return batch

    def _drop(self, deltas: Deltas) -> None:
        self._bytes -= sum(entry.size for entry in deltas.waiting)
        deltas.waiting.clear()
        self._streams.pop(deltas, None)

    async def _send(self, batch: Iterable[tuple[Deltas, Entry]]) -> None:
        pipeline: Any = self.client.pipeline(transaction=False)
        for deltas, entry in batch:
            pipeline.execute_command(
                "XADD", deltas.stream, "MAXLEN", "~", LONGEST, entry.id, "type", entry.kind, "data", entry.data
            )
        for deltas in self._under_way:
            pipeline.execute_command("PEXPIRE", deltas.stream, KEPT_MS)
        try:
            async with asyncio.timeout(SOCKET_TIMEOUT_S):
                replies = await pipeline.execute(raise_on_error=False)
        except (RedisError, OSError):
            for deltas in self._under_way:
                deltas.missed = True
            return
        if any(isinstance(reply, ReadOnlyError) for reply in replies):
            # After a failover the address means another server.
            await self.client.connection_pool.disconnect(inuse_connections=False)


class _Typed(msgspec.Struct):
    type: str


_TYPED: Final = msgspec.json.Decoder(_Typed)
"""Passes over all other members of an event, so that a large one is not built."""


def _kind(data: bytes) -> str:
    try:
        return _TYPED.decode(data).type
    except (ValueError, RecursionError):
        return "unknown"
