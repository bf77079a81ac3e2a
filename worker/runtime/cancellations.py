"""Stops what this process runs of cancelled requests: Redis tells of each mark, and a slow sweep misses none."""

import asyncio
import itertools
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from api_contracts.queues import cancel_key
from worker.queue.ledger import Ledger
from worker.request.execution import Execution, Interruption
from worker.request.held import HeldRequests

GATHER_S: Final = 0.02
"""Marks that are set together are looked up together."""

SWEEP_S: Final = 15.0
POLL_S: Final = 0.5
"""Between two looks at all that is held: while Redis tells of marks, and while it does not."""


@dataclass(slots=True, kw_only=True)
class Cancellations:
    held: HeldRequests
    ledger: Ledger
    told: Callable[[], bool]
    """Whether Redis tells of marks."""
    _marks: set[str] = field(default_factory=set[str])
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def marked(self, marks: Sequence[str]) -> None:
        """These cancel marks were set or removed."""
        self._marks.update(marks)
        self._news.set()

    async def run(self) -> None:
        """Interrupts until cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(SWEEP_S if self.told() else POLL_S):
                    await self._news.wait()
                    await asyncio.sleep(GATHER_S)
            news, self._marks = self._marks, set()
            sweeping = not self._news.is_set()
            self._news.clear()
            mine = {mark: each for mark, each in self._of_mine().items() if sweeping or mark in news}
            if mine:
                found = await self.ledger.cancelled(list(mine))
                for execution in itertools.compress(mine.values(), found):
                    execution.interrupt(Interruption.CANCELLED)

    def _of_mine(self) -> dict[str, Execution]:
        messages = [(execution, execution.message) for execution in self.held]
        return {cancel_key(message.tenant, message.request_id): each for each, message in messages if message}
