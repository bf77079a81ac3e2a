"""Reads the fleet for everybody who looks: one read every two seconds while somebody does, none while nobody does."""

import asyncio
import itertools
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
from redis.exceptions import RedisError

from worker.config.settings import Settings
from worker.dashboard.snapshot import name_shown, snapshot
from worker.operations.audit import Audit
from worker.operations.dead_letters import DeadLetters, Replay, Selection
from worker.operations.fleet_view import FleetReader
from worker.operations.redrive import FailedRequest, FailedRequests, Failures, counted, run_anew

EVERY_S: Final = 2.0
MOST_LETTERS: Final = 50
MOST_FAILED: Final = 2_000
"""Failed requests that the page counts by lane and code, and that one act runs anew."""


@dataclass(slots=True)
class FleetWatch:
    """Everybody gets the same bytes; Redis is asked on a thread, with a client of its own."""

    settings: Settings
    _reader: FleetReader = field(init=False)
    _latest: bytes = b""
    _read_at: float = 0.0
    _reading: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        self._reader = FleetReader.of(self.settings)

    async def latest(self) -> bytes:
        """The fleet as JSON, at most two seconds old; `{"error": ...}` while it cannot be read."""
        async with self._reading:
            if time.monotonic() - self._read_at >= EVERY_S * 0.9:
                self._latest = await asyncio.to_thread(self._read)
                self._read_at = time.monotonic()
            return self._latest

    async def events(self) -> AsyncGenerator[bytes]:
        """Server-sent events, one for each read."""
        while True:
            yield b"data: " + await self.latest() + b"\n\n"
            await asyncio.sleep(EVERY_S)

    async def replay(self, entry_id: str) -> Replay:
        """Sends one dead letter back to its lane. Raises RedisError."""
        return await asyncio.to_thread(self._replay, entry_id)

    async def count(self, failures: Failures) -> dict[str, Any]:
        """The failed requests that one act would run anew, and the cost to expect. Raises RedisError."""
        return await asyncio.to_thread(self._with_failed, failures, counted)

    async def redrive(self, failures: Failures) -> dict[str, Any]:
        """Runs them anew. Raises RedisError."""
        return await asyncio.to_thread(self._with_failed, failures, self._recorded)

    def _with_failed(
        self, failures: Failures, act: Callable[[Any, list[FailedRequest]], dict[str, Any]]
    ) -> dict[str, Any]:
        with self.settings.redis.client() as redis:
            return act(redis, list(itertools.islice(FailedRequests(redis).find(failures), MOST_FAILED)))

    def _recorded(self, redis: Any, found: list[FailedRequest]) -> dict[str, Any]:
        kinds = {(failed.lane, failed.code) for failed in found}
        told = ", ".join(f"{name_shown(code)} of lane {name_shown(lane)}" for lane, code in sorted(kinds))
        Audit(redis, self.settings.fleet).record(f"redrive {told}: {len(found)} requests", "on the dashboard")
        return run_anew(redis, found)

    def _replay(self, entry_id: str) -> Replay:
        with self.settings.redis.client() as redis:
            Audit(redis, self.settings.fleet).record(f"dead replay: {name_shown(entry_id)}", "on the dashboard")
            return DeadLetters(redis).replay(entry_id)

    def _read(self) -> bytes:
        try:
            client: Any = self.settings.redis.client()
            with client as redis:
                letters = list(itertools.islice(DeadLetters(redis).find(Selection()), MOST_LETTERS))
                failed = FailedRequests(redis).groups(MOST_FAILED)
                return orjson.dumps(snapshot(self._reader.read(redis), letters, failed))
        except (RedisError, OSError) as error:
            return orjson.dumps({"error": f"Redis does not answer: {type(error).__name__}"})
        except (ValueError, KeyError, TypeError, AttributeError) as error:  # somebody else wrote into our keys
            return orjson.dumps({"error": f"Redis holds something unreadable: {type(error).__name__}"})
