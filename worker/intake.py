"""What this process takes from its lanes, and when: no more than it can start soon, each lane by its weight."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from worker.claims import Delivery
from worker.ledger import Ledger

BULK: Final = 64
"""Messages taken per round trip; what one process hoards, its death strands for a lease."""

QUICK_POLL_S: Final = 0.02
SLOW_POLL_S: Final = 0.2
"""An idle worker asks five times a second: one script call, whatever the number of lanes."""


@dataclass(slots=True)
class Shares:
    """Smooth weighted round robin over lanes: over time each lane is offered its share, never in bursts."""

    weights: Mapping[str, int]
    _credit: dict[str, int] = field(default_factory=dict[str, int])

    def quotas(self, places: int) -> dict[str, int]:
        """How many of the next `places` messages each lane may give; lanes without any are asked last."""
        quotas = dict.fromkeys(self.weights, 0)
        total = sum(self.weights.values())
        for _ in range(places):
            for lane, weight in self.weights.items():
                self._credit[lane] = self._credit.get(lane, 0) + weight
            richest = max(self.weights, key=lambda lane: self._credit[lane])
            self._credit[richest] -= total
            quotas[richest] += 1
        return dict(sorted(quotas.items(), key=lambda pair: -pair[1]))


@dataclass(slots=True)
class Intake:
    """Takes deliveries while `places()` says there is room, and hands each to `start`."""

    ledger: Ledger
    shares: Shares
    places: Callable[[], int]
    start: Callable[[Delivery], None]
    room: asyncio.Event = field(default_factory=asyncio.Event)
    """Set whenever a place may have become free."""

    async def run(self) -> None:
        pause_s = QUICK_POLL_S
        while True:
            places = min(BULK, self.places())
            if places <= 0:
                await self._wait_for_room()
                continue
            deliveries = await self.ledger.pop(self.shares.quotas(places))
            for delivery in deliveries:
                self.start(delivery)
            pause_s = QUICK_POLL_S if deliveries else min(SLOW_POLL_S, pause_s * 1.5)
            if len(deliveries) < places:
                await asyncio.sleep(pause_s)

    async def _wait_for_room(self) -> None:
        self.room.clear()
        try:
            async with asyncio.timeout(SLOW_POLL_S):  # a pause of the budget ends without telling us
                await self.room.wait()
        except TimeoutError:
            return
