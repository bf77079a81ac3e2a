"""Upkeep of the queue: parked messages return, lost ones are reclaimed, and old results are removed.

Every worker does all of it. Each step is one script that leaves nothing for the second worker to do.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from worker.queue.claims import Backlog, Delivery
from worker.queue.events import QueueEvents
from worker.queue.ledger import Ledger
from worker.queue.retention import RETAIN_S, Retention
from worker.storage.scripts import ScriptError, ScriptRunner

PROMOTE_S: Final = 0.5
RECLAIM_S: Final = 1.0

FORGOTTEN_AT_ONCE: Final = 500
"""Kept results dropped by one call; a busy fleet needs many in one round."""


@dataclass(slots=True)
class Maintenance:
    ledger: Ledger
    runner: ScriptRunner
    lanes: Sequence[str]
    retention: timedelta
    high_water: int
    events: QueueEvents
    start: Callable[[Delivery], None] = lambda _: None
    """Takes what a reclaim handed over; set once there is an executor."""
    backlog: Backlog | None = None
    """The result stream above the high-water mark, as of the last look."""

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._every(PROMOTE_S, self.promote), name="promote")
            group.create_task(self._every(RECLAIM_S, self.reclaim), name="reclaim")
            group.create_task(self._every(RETAIN_S, self.retain), name="retain")

    async def promote(self) -> None:
        await self.ledger.promote(self.lanes)

    async def reclaim(self) -> None:
        reclaimed = await self.ledger.reclaim(self.lanes)
        if reclaimed:
            self.events.deliveries_reclaimed(reclaimed)
        for one in reclaimed:
            if one.handed is not None:
                self.start(one.handed)

    async def retain(self) -> None:
        """Drops what nobody needs any more and looks at how much is unread."""
        while await self.ledger.forget(FORGOTTEN_AT_ONCE) >= FORGOTTEN_AT_ONCE:
            pass
        over = await Retention(self.runner, self.retention, self.high_water).look()
        if over != self.backlog and (over is None or self.backlog is None):
            self.events.backlog_changed(over)
        self.backlog = over

    async def _every(self, seconds: float, step: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await step()
            except ScriptError as error:
                self.events.script_refused(error)
            await asyncio.sleep(seconds)
