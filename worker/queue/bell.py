"""The bell of a process: it says which lanes may hold messages, so that an idle process asks Redis for nothing.

A lane is awake from the moment at which the keeper rings for it (`keeper.py`) until a pop finds it empty. The bell
waits for the other lanes with one blocking pop of their bells, `BLPOP`, which Redis answers to one process for each
ring. A ring that is lost with a connection or a process is made up for: the keeper rings again while messages wait, and
every lane is asked now and then whether or not it rang.

On the same connection Redis tells of every mark that cancels a request.
"""

import asyncio
import random
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import redis.asyncio
from redis.exceptions import RedisError, ResponseError

from api_contracts.queues import CANCEL
from worker.storage import keys
from worker.storage.connection import SOCKET_TIMEOUT_S
from worker.storage.news import NewsLine, news_line

QUICK_POLL_S: Final = 0.02
SLOW_POLL_S: Final = 0.2
"""An idle worker asks five times a second where nothing rings: one script call, whatever the number of lanes."""

SWEEP_S: Final = 10.0
"""Between two looks at lanes that did not ring, while the bell is heard."""

SWEPT: Final = 2
"""Lanes in one such look."""

SETTLING_S: Final = 0.02
"""After a ring, the time in which its lane is mostly empty again: then one blocking pop waits for all lanes."""

BLOCK_S: Final = 5.0
LATE_S: Final = 2.0
"""After the end of a blocking pop, the time until its connection counts as lost: a message may wait for a lost ring."""

AGAIN_S: Final = (0.05, 0.2, 1.0)
REFUSED_S: Final = 60.0
"""Pauses until the next try: after a lost connection, the last one repeating, and after a server that refused."""

Marked = Callable[[Sequence[str]], None]


@dataclass(slots=True, kw_only=True)
class Lanes:
    """The lanes of a process that may hold messages, and when the others are to be asked as well."""

    lanes: Collection[str]
    news: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a lane wakes."""
    awake: set[str] = field(default_factory=set[str])
    heard: bool = False
    """Whether a ring would be heard; else the lanes are polled."""
    dozed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a lane was found empty."""
    _pause_s: float = QUICK_POLL_S
    _sweep_at: float = 0.0
    _next: int = 0

    def worth_asking(self) -> set[str]:
        """Those that are awake, or due in any case."""
        if (now := time.monotonic()) >= self._sweep_at:
            self._sweep_at = now + (SWEEP_S * random.uniform(0.8, 1.2) if self.heard else self._pause_s)
            self.awake |= self._due()
        return self.awake

    def asleep(self) -> list[str]:
        return [lane for lane in self.lanes if lane not in self.awake]

    @property
    def idle_s(self) -> float:
        """Seconds until lanes are due that did not ring."""
        return max(0.0, self._sweep_at - time.monotonic())

    def wake(self, lanes: Collection[str]) -> None:
        self.awake.update(lanes)
        self.news.set()

    def found(self, empty: Collection[str], taken: int) -> None:
        """A pop brought so many messages, and these lanes hold none."""
        self.awake.difference_update(empty)
        self._pause_s = QUICK_POLL_S if taken else min(SLOW_POLL_S, self._pause_s * 1.5)
        if not self.heard:
            self._sweep_at = time.monotonic() + self._pause_s
        if empty:
            self.dozed.set()

    def hear(self, heard: bool) -> None:  # noqa: FBT001  # the state itself
        """Rings are heard from now on, or no more; either way some may have been missed."""
        self.heard, self._sweep_at = heard, 0.0
        self.wake(self.lanes)

    def _due(self) -> set[str]:
        if not self.heard:
            return set(self.lanes)
        lanes, first = list(self.lanes), self._next
        self._next = (first + SWEPT) % len(lanes)
        return {lanes[(first + step) % len(lanes)] for step in range(SWEPT)}


@dataclass(slots=True, kw_only=True)
class Bell:
    """Waits for rings and wakes `lanes`; `marked` hears the cancel marks that were set or removed."""

    client: redis.asyncio.Redis
    lanes: Lanes
    marked: Marked = lambda _: None
    _nudging: "asyncio.Task[Any] | None" = None
    _unblocking: bool = False
    """Whether the command that ends the blocking pop is under way: to cancel it would cost its connection."""

    async def run(self) -> None:
        """Waits until cancelled."""
        tries = 0
        while True:
            pause_s = REFUSED_S
            try:
                async with news_line(self.client, self._told, "BCAST", "PREFIX", CANCEL) as line:
                    number = await line.call("CLIENT", "ID")
                    self.lanes.hear(True)
                    tries = 0
                    await self._listen(line, number)
            except ResponseError:
                pass
            except (RedisError, OSError, TimeoutError):
                pause_s = AGAIN_S[min(tries, len(AGAIN_S) - 1)]
            if self.lanes.heard:
                self.lanes.hear(False)
            tries += 1
            await asyncio.sleep(pause_s)

    async def _listen(self, line: NewsLine, number: int) -> None:
        """Blocks for the lanes that sleep; a lane that falls asleep meanwhile ends the wait, and a new one begins."""
        while True:
            self.lanes.dozed.clear()
            asleep = self.lanes.asleep()
            if asleep and (rung := await self._rung(line, number, asleep)):
                self.lanes.dozed.clear()
                self.lanes.wake([rung])
            await self._settled(SETTLING_S if asleep else BLOCK_S)

    async def _rung(self, line: NewsLine, number: int, asleep: Collection[str]) -> str:
        """The first of these lanes that rings; empty where none did, or one more fell asleep."""
        bells = {keys.lane(lane)["bell"]: lane for lane in asleep}
        self._unblocking = False
        self._nudging = asyncio.create_task(self._nudge(number, asleep))
        try:
            found = await line.call("BLPOP", *bells, BLOCK_S, within_s=BLOCK_S + LATE_S)
        finally:
            if not self._unblocking:
                self._nudging.cancel()
        return bells[found[0].decode()] if found else ""

    async def _settled(self, within_s: float) -> None:
        try:
            async with asyncio.timeout(within_s):
                await self.lanes.dozed.wait()
        except TimeoutError:
            return

    async def _nudge(self, number: int, waited: Collection[str]) -> None:
        """Ends the blocking pop once a lane sleeps for which it does not wait."""
        while set(self.lanes.asleep()) <= set(waited):
            self.lanes.dozed.clear()
            await self.lanes.dozed.wait()
        self._unblocking = True
        with suppress(RedisError, OSError, TimeoutError):
            async with asyncio.timeout(SOCKET_TIMEOUT_S):
                await self.client.execute_command("CLIENT", "UNBLOCK", number)  # pyright: ignore[reportUnknownMemberType]  # untyped kwargs

    def _told(self, names: Sequence[str] | None) -> None:
        self.marked(names or [])
