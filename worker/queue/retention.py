"""Removes results that nobody needs any more, and knows the stream whose readers are too far behind.

One process of the fleet makes a pass at a time, over a bounded number of streams: there may be one for each caller. The
others read what it found.
"""

import secrets
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, NamedTuple

from api_contracts.queues import RESULT_STREAM
from worker.queue.claims import Backlog
from worker.storage import keys
from worker.storage.commands import Command, Row, Rows, Script
from worker.storage.replies import record, records
from worker.storage.scripts import ScriptRunner

RETAIN_S: Final = 10.0
PAGES: Final = 20
"""Of about 100 streams each, one call a page: 2,000 streams a pass; a pass goes on where the last one stopped."""


class Turn(NamedTuple):
    """Whether this process makes the pass, where the last one stopped, and the backlog that it found, if any."""

    mine: bool
    cursor: str
    stream: str
    unread: int
    laggard: str


_backlogs = records(Backlog, after=1)
TURN: Final = Command(
    name="turn",
    keys=("retainer",),
    args={"token": str, "interval_ms": int},
    reply=record(Turn),
    even_when_full=True,
)
TRIM: Final = Command(
    name="trim",
    keys=("streams", "dead"),
    args={"retention_ms": int, "most": int, "cursor": str},
    rows=Rows("also", ("stream",)),
    reply=lambda report: (report[0].decode(), _backlogs(report)),
    even_when_full=True,
)
PASSED: Final = Command(
    name="passed",
    keys=("retainer",),
    args={"token": str, "cursor": str, "stream": str, "unread": int, "laggard": str},
    reply=bool,
    even_when_full=True,
)
RETENTION: Final = Script.load("queue/lua/retention.lua", commands=(TURN, TRIM, PASSED))


@dataclass(frozen=True, slots=True)
class Retention:
    """Streams with consumer groups keep what some group needs; the others keep what is young, `high_water` at most."""

    runner: ScriptRunner
    retention: timedelta
    high_water: int

    async def look(self) -> Backlog | None:
        """Makes the pass if it is due. Returns the stream at or above the high-water mark, if there is one."""
        token, interval_ms = secrets.token_hex(8), round(RETAIN_S * 1000)
        turn = await self.runner.call(RETENTION, TURN, keys.FLEET, token=token, interval_ms=interval_ms)
        if not turn.mine:
            return Backlog(turn.stream, turn.unread, turn.laggard) if turn.stream else None
        cursor, worst = await self._trim(turn)
        over = worst if worst and worst.unread >= self.high_water else None
        told = over or Backlog("", 0, "")
        await self.runner.call(RETENTION, PASSED, keys.FLEET, token=token, cursor=cursor, **told._asdict())
        return over

    async def _trim(self, turn: Turn) -> tuple[str, Backlog | None]:
        """Trims the main stream, the one that was too long last time, and some pages of all."""
        cursor, backlogs = turn.cursor, list[Backlog]()
        rows = [Row({"stream": name}, {}) for name in dict.fromkeys([RESULT_STREAM, turn.stream]) if name]
        retention_ms = round(self.retention.total_seconds() * 1000)
        for _ in range(PAGES):
            cursor, some = await self.runner.call(
                RETENTION, TRIM, keys.FLEET, rows, retention_ms=retention_ms, most=self.high_water, cursor=cursor
            )
            backlogs += some
            rows = []
            if cursor == "0":
                break
        return cursor, max(backlogs, key=lambda backlog: backlog.unread, default=None)
