"""The keeper: the one process of the fleet that watches the lanes for all others, so that those ask Redis for nothing.

Every process tries to be it, and one is, for as long as it says so every few seconds. Redis tells the keeper which
lanes changed (`CLIENT TRACKING`). It looks at those, and where messages wait it rings (`bell.py`): one idle process
wakes, takes what it can, and while messages are left the keeper rings again, for one process more each time. So one
message in front of a hundred idle processes costs a look, a ring and a pop. A keeper with a free place takes the
message itself, without look and ring. It also knows when the first parked message is due.

A dead keeper is missed for `KEPT_MS` at most; until then each process finds its messages by its own slow sweep.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from redis.exceptions import RedisError, ResponseError

from worker.queue.bell import AGAIN_S, REFUSED_S, SLOW_POLL_S
from worker.queue.events import QueueEvents
from worker.queue.kept_lanes import KeptLanes, Look
from worker.storage import keys
from worker.storage.commands import Command, Row, Rows, Script
from worker.storage.keys import LISTS
from worker.storage.news import NewsLine, news_line
from worker.storage.replies import number, records
from worker.storage.scripts import ScriptError, ScriptRunner

KEEP_S: Final = 1.5
KEPT_MS: Final = 3500
"""Until another process may become keeper. With one more `KEEP_S` and `RECLAIM_S` this is less than half a lease:
a longer gap between two reclaims looks to `reclaim` like an outage of Redis, and it waits one more lease."""

LEAVE_S: Final = 0.5

_looks = records(Look, after=1)

KEEP: Final = Command(
    name="keep",
    keys=("keeper", "lanes"),
    args={"process": str, "kept_ms": int},
    reply=lambda found: [lane.decode() for lane in found[1:]] if found else None,
    even_when_full=True,
)
YIELD: Final = Command(name="yield", keys=("keeper",), args={"process": str}, reply=number, even_when_full=True)
LOOK: Final = Command(
    name="look",
    rows=Rows("lanes", ("bell", "delayed", *LISTS)),
    reply=lambda found: (int(found[0]), _looks(found)),
    even_when_full=True,
)
KEEPER: Final = Script.load("queue/lua/keeper.lua", commands=(KEEP, YIELD, LOOK))


@dataclass(slots=True, kw_only=True)
class Keeper:
    """Tries to be the fleet's keeper, and is it while `kept` holds lanes."""

    runner: ScriptRunner
    process: str
    served: Collection[str]
    """By this process; the fleet's other lanes are kept as well."""
    kept: KeptLanes
    promote: Callable[[Sequence[str]], Awaitable[object]]
    events: QueueEvents
    offer: Callable[[Collection[str]], Collection[str]] = lambda _: ()
    """Offers lanes to this process before others are told; returns those that it takes from at once."""
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Keeps until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep(), name="keep")
            group.create_task(self._watch(), name="watch")

    async def leave(self) -> None:
        """Makes room for another keeper at once; takes half a second at most."""
        self.kept.hold([])
        with suppress(TimeoutError, ScriptError):
            async with asyncio.timeout(LEAVE_S):
                await self.runner.call(KEEPER, YIELD, keys.FLEET, process=self.process)

    async def _keep(self) -> None:
        while True:
            try:
                found = await self.runner.call(KEEPER, KEEP, keys.FLEET, process=self.process, kept_ms=KEPT_MS)
                self.kept.hold([] if found is None else [*self.served, *found])
                self._news.set()
            except ScriptError as error:
                self.events.script_refused(error)
            await asyncio.sleep(KEEP_S * random.uniform(0.9, 1.1))

    async def _watch(self) -> None:
        tries = 0
        while True:
            while not self.kept.lanes:
                self._news.clear()
                await self._news.wait()
            self.kept.unsure()
            try:
                async with news_line(self.runner.client, self._changed) as line:
                    tries = 0
                    await self._tend(line)
            except ResponseError:
                await self._poll()
            except (RedisError, OSError, TimeoutError):
                await asyncio.sleep(AGAIN_S[min(tries, len(AGAIN_S) - 1)])
                tries += 1

    async def _tend(self, line: NewsLine) -> None:
        """Looks where something changed, and promotes what is due, for as long as this process is the keeper."""
        while self.kept.lanes:
            self._news.clear()
            if lanes := self.kept.to_look_at():
                self.kept.saw(lanes, *await line.run(KEEPER, LOOK, {}, _rows(lanes)))
            await self._promote_due()
            await self._sleep(min(KEEP_S, self.kept.quiet_s))

    async def _poll(self) -> None:
        """The same, more slowly, where the server tells nobody of changes; whether it does is tried again later."""
        ends = time.monotonic() + REFUSED_S
        while time.monotonic() < ends and (lanes := self.kept.lanes):
            try:
                found = await self.runner.call(KEEPER, LOOK, {}, _rows(lanes))
                self.kept.unsure()
                self.kept.saw(lanes, *found)
                await self._promote_due()
            except ScriptError as error:
                self.events.script_refused(error)
            await asyncio.sleep(SLOW_POLL_S)

    def _changed(self, names: Sequence[str] | None) -> None:
        self.kept.postpone(self.offer(self.kept.changed(names)))
        self._news.set()

    async def _promote_due(self) -> None:
        try:
            if due := self.kept.to_promote():
                await self.promote(due)
        except ScriptError as error:
            self.events.script_refused(error)

    async def _sleep(self, within_s: float) -> None:
        """Until there is news, within so many seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._news.wait()


def _rows(lanes: Iterable[str]) -> list[Row]:
    return [Row(keys.lane(lane), {}) for lane in lanes]
