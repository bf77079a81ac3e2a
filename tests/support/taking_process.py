"""The part of a worker that takes messages."""

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from support.heard import Heard
from worker.queue.bell import Bell, Lanes
from worker.queue.claims import Delivery
from worker.queue.fetcher import Fetcher, Shares
from worker.queue.keeper import Keeper
from worker.queue.kept_lanes import KeptLanes
from worker.queue.ledger import Ledger
from worker.storage.scripts import ScriptRunner


@dataclass
class Process:
    """A bell, a fetcher, and perhaps the fleet's keeper."""

    runner: ScriptRunner
    served: Iterable[str]
    started: list[Delivery] = field(default_factory=list[Delivery])
    marks: list[str] = field(default_factory=list[str])
    heard: Heard = field(default_factory=Heard)
    kept: KeptLanes = field(default_factory=KeptLanes)
    has_place: bool = True

    def __post_init__(self) -> None:
        self.ledger = Ledger(self.runner)
        self.lanes = Lanes(lanes=list(self.served))
        self.bell = Bell(client=self.runner.client, lanes=self.lanes, marked=self.marks.extend)
        self.fetcher = Fetcher(
            self.ledger,
            Shares(dict.fromkeys(self.served, 1)),
            lambda: 100,
            lambda _: 100,
            self.started.append,
            self.heard,
            self.lanes,
            idle=lambda: self.has_place,
        )
        self.keeper = Keeper(
            runner=self.runner,
            process=self.ledger.process,
            served=list(self.served),
            kept=self.kept,
            promote=self.ledger.promote,
            events=self.heard,
            offer=self.fetcher.offer,
        )
        self.tasks = [asyncio.create_task(job()) for job in (self.bell.run, self.keeper.run, self.fetcher.run)]

    @property
    def taken(self) -> list[bytes]:
        return [delivery.message for delivery in self.started]

    @property
    def idle(self) -> bool:
        """Whether it waits for a ring of each of its lanes."""
        return self.lanes.heard and not self.lanes.awake

    async def leave(self) -> None:
        for task in self.tasks:
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.runner.aclose()
