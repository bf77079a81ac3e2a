"""What some worker must do now and then so that nothing waits, and nothing stays, for ever.

Every worker does all of it: each step is one script that leaves nothing for the second to do.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from worker.queue.claims import Reclaimed
from worker.queue.ledger import Ledger
from worker.storage.scripts import Script, ScriptError, ScriptRunner

RETENTION: Final = Script.load("queue/lua/retention.lua", even_when_full=frozenset({"trim"}))

PROMOTE_S: Final = 0.5
RECLAIM_S: Final = 1.0
RETAIN_S: Final = 10.0

FORGOTTEN_AT_ONCE: Final = 500
"""Kept results dropped by one call; a busy fleet needs many in one round."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """One result stream: entries that somebody may still need, and the group furthest behind, if any."""

    stream: str
    unread: int
    laggard: str


@dataclass(slots=True)
class Maintenance:
    ledger: Ledger
    runner: ScriptRunner
    lanes: Sequence[str]
    retention: timedelta
    high_water: int
    on_reclaimed: Callable[[Sequence[Reclaimed]], None]
    on_backlog: Callable[[Backlog | None], None]
    """Hears of a stream over the high-water mark, and of None when none is."""
    on_trouble: Callable[[ScriptError], None]
    """Hears of a step that failed; the next round tries again."""
    backlog: Backlog | None = field(default=None)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(_every(PROMOTE_S, self.promote, self.on_trouble), name="promote")
            group.create_task(_every(RECLAIM_S, self.reclaim, self.on_trouble), name="reclaim")
            group.create_task(_every(RETAIN_S, self.retain, self.on_trouble), name="retain")

    async def promote(self) -> None:
        await self.ledger.promote(self.lanes)

    async def reclaim(self) -> None:
        reclaimed = await self.ledger.reclaim(self.lanes)
        if reclaimed:
            self.on_reclaimed(reclaimed)

    async def retain(self) -> None:
        """Drops what nobody needs any more and looks at how much is unread."""
        while await self.ledger.forget(FORGOTTEN_AT_ONCE) >= FORGOTTEN_AT_ONCE:
            pass
        worst = max(await self._backlogs(), key=lambda backlog: backlog.unread, default=None)
        over = worst if worst and worst.unread >= self.high_water else None
        if over != self.backlog and (over is None or self.backlog is None):
            self.on_backlog(over)
        self.backlog = over

    async def _backlogs(self) -> list[Backlog]:
        """Trims every result stream, some at a time, because other calls wait meanwhile."""
        retention_ms = round(self.retention.total_seconds() * 1000)
        backlogs: list[Backlog] = []
        cursor = b""
        while cursor != b"0":
            cursor, *report = await self.runner.call(RETENTION, "trim", retention_ms, cursor or b"0")
            rows = iter(report)
            backlogs += [
                Backlog(stream.decode(), int(unread), laggard.decode())
                for stream, unread, laggard in zip(rows, rows, rows, strict=True)
            ]
        return backlogs


async def _every(
    seconds: float, step: Callable[[], Awaitable[None]], on_trouble: Callable[[ScriptError], None]
) -> None:
    while True:
        try:
            await step()
        except ScriptError as error:
            on_trouble(error)
        await asyncio.sleep(seconds)
