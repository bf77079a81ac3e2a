"""Upkeep of the queue: parked messages return, lost ones are reclaimed, and old results are removed.

The keeper does it for the whole fleet; results are looked after by whoever finds it due. Each step is one script that
leaves nothing for a second worker to do.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from worker.queue.claims import Backlog, Delivery
from worker.queue.events import QueueEvents
from worker.queue.kept_lanes import KeptLanes
from worker.queue.ledger import Ledger
from worker.queue.retention import RETAIN_S, Retention
from worker.storage.scripts import ScriptError, ScriptRunner

RECLAIM_S: Final = 2.0
TICK_S: Final = 0.1
"""Between two looks whether this process has become the keeper: then it reclaims at once."""

FORGOTTEN_AT_ONCE: Final = 500
"""Kept results dropped by one call; a busy fleet needs many in one round."""

EXPIRE_S: Final = 60.0
"""Between two looks for messages of failed requests whose day is over."""

FAILED_AT_ONCE: Final = 100
"""Messages of failed requests dropped by one call; one may have megabytes, and to free them takes Redis time."""


@dataclass(slots=True)
class Maintenance:
    ledger: Ledger
    runner: ScriptRunner
    lanes: Sequence[str]
    retention: timedelta
    high_water: int
    events: QueueEvents
    kept: KeptLanes = field(default_factory=KeptLanes)
    start: Callable[[Delivery], None] = lambda _: None
    """Takes what a reclaim handed over; set once there is an executor."""
    backlog: Backlog | None = None
    """The result stream above the high-water mark, as of the last look."""
    _reclaim_at: float = 0.0
    _expire_at: float = 0.0

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._every(TICK_S, self._tick), name="reclaim")
            group.create_task(self._every(RETAIN_S, self.retain), name="retain")

    async def promote(self, lanes: Sequence[str]) -> None:
        await self.ledger.promote(lanes)

    async def reclaim(self) -> None:
        """Ends deliveries of silent workers, in the lanes in which something may be in flight."""
        lanes = sorted(self.kept.moved)
        self.kept.moved.clear()
        idle: frozenset[str] = frozenset()
        try:
            found = await self.ledger.reclaim(lanes)
            idle = found.idle
        finally:
            self.kept.moved.update(set(lanes) - idle)  # beside those that moved meanwhile
        if found.lost:
            self.events.deliveries_reclaimed(found.lost)
        for one in found.lost:
            if one.handed is not None:
                self.start(one.handed)

    async def retain(self) -> None:
        """Drops what nobody needs any more, looks at how much is unread, and says which lanes are served."""
        await self.ledger.serve(self.lanes)
        while await self.ledger.forget(FORGOTTEN_AT_ONCE) >= FORGOTTEN_AT_ONCE:
            pass
        await self._expire_failed()
        over = await Retention(self.runner, self.retention, self.high_water).look()
        if over != self.backlog and (over is None or self.backlog is None):
            self.events.backlog_changed(over)
        self.backlog = over

    async def _expire_failed(self) -> None:
        if time.monotonic() < self._expire_at:
            return
        while await self.ledger.expire_failed(FAILED_AT_ONCE) >= FAILED_AT_ONCE:
            pass
        self._expire_at = time.monotonic() + EXPIRE_S

    async def _tick(self) -> None:
        if not self.kept.lanes:
            self._reclaim_at = 0.0
        elif time.monotonic() >= self._reclaim_at:
            self._reclaim_at = time.monotonic() + RECLAIM_S
            await self.reclaim()

    async def _every(self, seconds: float, step: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await step()
            except ScriptError as error:
                self.events.script_refused(error)
            await asyncio.sleep(seconds)
