"""The fetcher takes messages from this process' lanes: no more than it can start and hold, each lane by its weight."""

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from worker.queue.claims import Delivery
from worker.queue.events import QueueEvents
from worker.queue.leases import tokens_of
from worker.queue.ledger import Ledger
from worker.queue.pop_size import LARGEST_POP, PopSize
from worker.storage.scripts import ScriptError

BULK: Final = 64
"""Messages taken per round trip; what one process hoards, its death strands for a lease."""

QUICK_POLL_S: Final = 0.02
SLOW_POLL_S: Final = 0.2
"""An idle worker asks five times a second: one script call, whatever the number of lanes."""

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

    A pop brings at most `room()` bytes, unless one message alone has more.
    """

    ledger: Ledger
    shares: Shares
    places: Callable[[], int]
    vacancies: Callable[[str], int]
    start: Callable[[Delivery], None]
    events: QueueEvents
    freed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set whenever a place may have become free."""
    room: Callable[[], int] = lambda: LARGEST_POP
    arriving: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    """Lane and token of all that the pop under way may have taken: its leases run while the bytes arrive."""
    _size: PopSize = field(default_factory=PopSize)

    async def run(self) -> None:
        """Takes until cancelled; what was asked for by then still arrives and is started."""
        pause_s = QUICK_POLL_S
        while True:
            limits = {lane: self.vacancies(lane) for lane in self.shares.weights}
            places = min(BULK, self.places(), sum(limits.values()))
            if places <= 0:
                await self._wait_for_place()
                continue
            try:
                taken = await self._take(places, limits)
            except ScriptError as error:
                self.arriving = []
                self.events.script_refused(error)
                await asyncio.sleep(REFUSED_S)
                continue
            pause_s = QUICK_POLL_S if taken else min(SLOW_POLL_S, pause_s * 1.5)
            if taken < places:
                await asyncio.sleep(pause_s)

    async def _take(self, places: int, limits: Mapping[str, int]) -> int:
        began = time.monotonic()
        quotas = self.shares.quotas(places, limits)
        pop_id = self.ledger.fresh_id()
        self.arriving = tokens_of(pop_id, quotas, places)
        popping = asyncio.create_task(self.ledger.pop(quotas, limits, min(self._size.bytes, self.room()), pop_id))
        try:
            await asyncio.shield(popping)
        finally:
            # Cancelled or not: a pop under way cannot be called back, and nobody else would know what it took.
            deliveries = await popping
            self._size.learn(sum(len(delivery.message) for delivery in deliveries), time.monotonic() - began)
            for delivery in deliveries:
                self.start(delivery)
            self.arriving = []
        return len(deliveries)

    async def _wait_for_place(self) -> None:
        self.freed.clear()
        try:
            async with asyncio.timeout(SLOW_POLL_S):  # a pause of the budget ends without telling us
                await self.freed.wait()
        except TimeoutError:
            return
