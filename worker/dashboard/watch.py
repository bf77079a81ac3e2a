"""Reads the fleet for everybody who looks: one read every two seconds while somebody does, none while nobody does."""

import asyncio
import itertools
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
from redis.exceptions import RedisError

from worker.config.settings import Settings
from worker.dashboard.snapshot import name_shown, snapshot
from worker.operations.audit import Audit
from worker.operations.dead_letters import DeadLetters, Replay, Selection
from worker.operations.fleet_view import FleetReader

EVERY_S: Final = 2.0
MOST_LETTERS: Final = 50


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

    def _replay(self, entry_id: str) -> Replay:
        with self.settings.redis.client() as redis:
            Audit(redis, self.settings.fleet).record(f"dead replay: {name_shown(entry_id)}", "on the dashboard")
            return DeadLetters(redis).replay(entry_id)

    def _read(self) -> bytes:
        try:
            client: Any = self.settings.redis.client()
            with client as redis:
                letters = list(itertools.islice(DeadLetters(redis).find(Selection()), MOST_LETTERS))
                return orjson.dumps(snapshot(self._reader.read(redis), letters))
        except (RedisError, OSError) as error:
            return orjson.dumps({"error": f"Redis does not answer: {type(error).__name__}"})
        except (ValueError, KeyError, TypeError, AttributeError) as error:  # somebody else wrote into our keys
            return orjson.dumps({"error": f"Redis holds something unreadable: {type(error).__name__}"})
