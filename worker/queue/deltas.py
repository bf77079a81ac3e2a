"""Token deltas on their way to whoever watches: each event of a streamed call, appended to the request's own stream.

Entry ids are `<attempt>-<n>`, given by us. That makes an append safe to repeat after a lost reply, keeps a worker
that lost its lease from writing into its successor's stream (its ids are smaller, and Redis refuses them), and lets a
reader resume from the last id it saw. The last entry, written by the ledger with the result, has Redis' own id, which
is larger than any of these.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
import redis.asyncio
from redis.exceptions import RedisError

from worker.storage.connection import SOCKET_TIMEOUT_S

FLUSH_S: Final = 0.01
"""Events gather this long: a hundred streams at once then share a round trip."""

LONGEST: Final = 20_000
"""Entries kept per stream; a response has a few thousand events."""

KEPT_MS: Final = 3_600_000

_TERMINAL: Final = frozenset({"response.completed", "response.incomplete", "response.failed"})
"""Not relayed: the result says the same, and may be large."""


@dataclass(slots=True)
class Deltas:
    """The events of one attempt, on their way to one stream."""

    relay: "DeltaRelay"
    stream: str
    attempt: int
    _sent: int = 0

    def restarted(self, code: str | None) -> None:
        """Tells readers to forget what came so far: an earlier attempt was cut short."""
        self._append("restarted", orjson.dumps({"attempt": self.attempt, "code": code}))

    def event(self, data: bytes) -> None:
        """Takes the data of one server-sent event, as the gateway wrote it."""
        kind = _kind(data)
        if kind not in _TERMINAL:
            self._append(kind, data)

    def _append(self, kind: str, data: bytes) -> None:
        self._sent += 1
        self.relay.append((self.stream, f"{self.attempt}-{self._sent}", kind, data))


@dataclass(slots=True)
class DeltaRelay:
    """Appends what gathers, many streams at once; what Redis does not take in time is dropped, the result is not."""

    client: redis.asyncio.Redis
    _waiting: list[tuple[str, str, str, bytes]] = field(default_factory=list[tuple[str, str, str, bytes]])
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _idle: asyncio.Event = field(default_factory=asyncio.Event)

    def open(self, stream: str, attempt: int) -> Deltas:
        return Deltas(self, stream, attempt)

    def append(self, entry: tuple[str, str, str, bytes]) -> None:
        self._waiting.append(entry)
        self._idle.clear()
        self._news.set()

    async def flushed(self) -> None:
        """Returns when everything appended so far is sent, or given up."""
        if self._waiting:
            await self._idle.wait()

    async def pump(self) -> None:
        """Sends what gathers, for as long as the process lives."""
        while True:
            await self._news.wait()
            self._news.clear()
            await asyncio.sleep(FLUSH_S)
            batch, self._waiting = self._waiting, []
            await self._send(batch)
            if not self._waiting:
                self._idle.set()

    async def _send(self, batch: list[tuple[str, str, str, bytes]]) -> None:
        pipeline: Any = self.client.pipeline(transaction=False)
        for stream, entry_id, kind, data in batch:
            pipeline.execute_command("XADD", stream, "MAXLEN", "~", LONGEST, entry_id, "type", kind, "data", data)
        for stream in {entry[0] for entry in batch}:
            pipeline.execute_command("PEXPIRE", stream, KEPT_MS)
        try:
            async with asyncio.timeout(SOCKET_TIMEOUT_S):
                await pipeline.execute(raise_on_error=False)
        except (RedisError, OSError):
            return  # a watcher misses some tokens; the result does not depend on it


def _kind(data: bytes) -> str:
    try:
        return str(orjson.loads(data)["type"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return "unknown"
