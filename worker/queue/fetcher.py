"""The fetcher takes messages from this process' lanes: no more than it can start and hold, each lane by its weight."""

import asyncio
import random
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

from worker.queue.bell import Lanes
from worker.queue.claims import Delivery
from worker.queue.events import QueueEvents
from worker.queue.leases import tokens_of
from worker.queue.ledger import Ledger
from worker.queue.pop_size import LARGEST_POP, PopSize
from worker.storage.scripts import ScriptError

BULK: Final = 64
"""Messages taken per round trip; what one process hoards, its death strands for a lease."""

ROOM_S: Final = 0.2
"""The longest time between two looks at the room in this process: a pause of the budget ends without telling."""

REFUSED_S: Final = 1.0
"""Until the next try after the ledger refused, as it does while a key of a lane holds something else."""


@dataclass(slots=True)
class Shares:
    """Smooth weighted round robin over lanes: over time each lane is offered its share, never in bursts.

    What one lane leaves of its share goes to the others in a random order that prefers the heavier: any fixed
    order would give it all to one of them.
    """

    weights: Mapping[str, int]
    rng: random.Random = field(default_factory=random.Random)
    _credit: dict[str, int] = field(default_factory=dict[str, int])

    def quotas(self, places: int, limits: Mapping[str, int]) -> dict[str, int]:
        """Messages that each lane may give of the next `places`, in the order in which leftovers are offered.

        No lane's quota exceeds its limit; lanes whose limit is 0 are left out.
        """
        quotas = {lane: 0 for lane in self.weights if limits[lane] > 0}
        for _ in range(min(places, sum(limits[lane] for lane in quotas))):
            free = [lane for lane in quotas if quotas[lane] < limits[lane]]
            for lane in free:
                self._credit[lane] = self._credit.get(lane, 0) + self.weights[lane]
            richest = max(free, key=lambda lane: self._credit[lane])
            self._credit[richest] -= sum(self.weights[lane] for lane in free)
            quotas[richest] += 1
        # Efraimidis and Spirakis 2006: the first of this order is drawn by weight.
        drawn = sorted(quotas, key=lambda lane: self.rng.random() ** (1 / self.weights[lane]), reverse=True)
        return {lane: quotas[lane] for lane in drawn}


@dataclass(slots=True)
class Fetcher:
    """Takes deliveries while there are `places()` in the process and `vacancies` in their lane; `start`s each.

    It asks those `lanes` that may hold some. A pop brings at most `room()` bytes, unless one message alone has more.
    """

    ledger: Ledger
    shares: Shares
    places: Callable[[], int]
    vacancies: Callable[[str], int]
    start: Callable[[Delivery], None]
    events: QueueEvents
    lanes: Lanes
    """Their `news` is set as well whenever a place may have become free."""
    room: Callable[[], int] = lambda: LARGEST_POP
    idle: Callable[[], bool] = lambda: True
    """Whether a call could start at once."""
    arriving: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    """Lane and token of all that the pop under way may have taken: its leases run while the bytes arrive."""
    _size: PopSize = field(default_factory=PopSize)

    async def run(self) -> None:
        """Takes until cancelled; what was asked for by then still arrives and is started."""
        while True:
            limits = self._limits()
            places = min(BULK, self.places(), sum(limits.values()))
            if places <= 0:
                await self._wait()
                continue
            try:
                await self._take(places, limits)
            except ScriptError as error:
                self.arriving = []
                self.events.script_refused(error)
                await asyncio.sleep(REFUSED_S)

    def offer(self, lanes: Collection[str]) -> set[str]:
        """Wakes those of these lanes from which the process will take at once; returns them."""
        asleep = {lane for lane in self.shares.weights if lane in lanes and lane not in self.lanes.awake}
        taken = {lane for lane in asleep if self.vacancies(lane) > 0} if self.idle() else set[str]()
        if taken:
            self.lanes.wake(taken)
        return taken

    def _limits(self) -> dict[str, int]:
        worth_asking = self.lanes.worth_asking()
        return {lane: self.vacancies(lane) if lane in worth_asking else 0 for lane in self.shares.weights}

    async def _take(self, places: int, limits: Mapping[str, int]) -> None:
        began = time.monotonic()
        quotas = self.shares.quotas(places, limits)
        pop_id = self.ledger.fresh_id()
        self.arriving = tokens_of(pop_id, quotas, places)
        popping = asyncio.create_task(self.ledger.pop(quotas, limits, min(self._size.bytes, self.room()), pop_id))
        try:
            await asyncio.shield(popping)
        finally:
            # Cancelled or not: a pop under way cannot be called back, and nobody else would know what it took.
            popped = await popping
            self._size.learn(sum(len(delivery.message) for delivery in popped.deliveries), time.monotonic() - began)
            for delivery in popped.deliveries:
                self.start(delivery)
            self.arriving = []
            self.lanes.found(popped.empty, len(popped.deliveries))

    async def _wait(self) -> None:
        """Until a lane wakes or a place becomes free, or it is time to look in any case."""
        self.lanes.news.clear()
        try:
            async with asyncio.timeout(ROOM_S if self.lanes.awake else min(ROOM_S, self.lanes.idle_s)):
                await self.lanes.news.wait()
        except TimeoutError:
            return
