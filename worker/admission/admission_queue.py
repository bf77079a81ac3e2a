"""Where requests wait for the budget: one room a lane, first come first served."""

import asyncio
import math
import random
import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from worker.admission.client import Admission
from worker.admission.grants import Ask, Grant, NotAdmitted, Reason, Reservation
from worker.storage.scripts import ScriptError

BULK: Final = 64
"""Grants asked for at once."""

SHORTEST_SLEEP_S: Final = 0.05
"""A process with a full room asks at most this often: 8 processes make 160 calls a second a lane at the very most."""

LONGEST_SLEEP_S: Final = 1.0
"""The pump looks again after this, so that an operator's resume or another process' refund is seen."""

SHORTEST_ROOM: Final = 4
AHEAD_S: Final = 1.0
"""How many seconds' worth of the fleet's rate one process takes from a lane before it may start it."""

GATED_ROOM: Final = 16
"""What is still taken while the upstream is out of order: so that deadlines and patience are honoured."""


@dataclass(eq=False, slots=True)
class _Waiter:
    token: str
    tokens: int
    arrived: float
    patience_ends: float
    seat: "asyncio.Future[Reservation | NotAdmitted]"

    def seen(self) -> Reservation | NotAdmitted | None:
        """The grant that arrived in the same loop step as the timeout."""
        return self.seat.result() if self.seat.done() and not self.seat.cancelled() else None


@dataclass(slots=True)
class AdmissionQueue:
    """One lane's waiting room in this process."""

    lane: str
    weight: int
    admission: Admission
    _waiters: deque[_Waiter] = field(default_factory=deque[_Waiter])
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _size: int = SHORTEST_ROOM

    @property
    def vacancies(self) -> int:
        """How many more requests of this lane are worth taking now."""
        size = GATED_ROOM if self.admission.gate or self.admission.paused else self._size
        return max(0, size - len(self._waiters))

    async def admit(self, token: str, tokens: int, *, within_s: float, patience_s: float) -> Reservation | NotAdmitted:
        """Waits for a grant, at most `within_s`; on an upstream that is out of order at most `patience_s`."""
        if not self.admission.fits(tokens):
            return NotAdmitted(Reason.NEVER, 0)
        loop = asyncio.get_running_loop()
        waiter = _Waiter(token, tokens, loop.time(), loop.time() + patience_s, loop.create_future())
        self._waiters.append(waiter)
        if len(self._waiters) == 1:
            self._news.set()
        try:
            async with asyncio.timeout(within_s):
                return await waiter.seat
        except TimeoutError:
            return waiter.seen() or NotAdmitted(Reason.TIME, _since(waiter.arrived))
        except asyncio.CancelledError:
            if isinstance(unused := waiter.seen(), Reservation):
                await self.admission.report(unused, None)
            raise
        finally:
            self._leave(waiter)

    async def pump(self) -> None:
        """Moves waiters to their calls for as long as the process lives."""
        while True:
            self._news.clear()
            if not self._waiters:
                await self._news.wait()
                continue
            waiters = [waiter for _, waiter in zip(range(BULK), self._waiters, strict=False)]
            try:
                grant = await self._grant(waiters)
            except ScriptError as error:
                self.admission.events.script_refused(error)
                await self._sleep(LONGEST_SLEEP_S)
                continue
            if grant.code:
                self._dismiss(grant.code)
            if grant.wait_ms:
                await self._sleep(grant.wait_ms / 1000)

    async def _grant(self, waiters: list[_Waiter]) -> Grant:
        grant = await self.admission.grant(self.lane, self.weight, [(each.token, each.tokens) for each in waiters])
        self._size = max(SHORTEST_ROOM, math.ceil(grant.per_second * AHEAD_S))
        await self._seat(waiters[: grant.granted], grant)
        return grant

    async def _seat(self, granted: Iterable[_Waiter], grant: Grant) -> None:
        for waiter in granted:
            waited_ms = _since(waiter.arrived)
            gate = self.admission.gate if grant.probe else ""
            reservation = Reservation(waiter.token, waiter.tokens, waited_ms, grant.now_ms, gate)
            self._leave(waiter)
            if waiter.seat.done():  # it left while the grant was on its way
                await self.admission.report(reservation, None)
            else:
                waiter.seat.set_result(reservation)

    def _dismiss(self, code: str) -> None:
        """Sends away whose patience with a broken upstream is over."""
        now = asyncio.get_running_loop().time()
        for waiter in [waiter for waiter in self._waiters if waiter.patience_ends <= now]:
            self._leave(waiter)
            if not waiter.seat.done():
                waiter.seat.set_result(NotAdmitted(Reason.GATE, _since(waiter.arrived), code))

    def _leave(self, waiter: _Waiter) -> None:
        if waiter in self._waiters:
            self._waiters.remove(waiter)

    async def _sleep(self, seconds: float) -> None:
        # A tenth of spread, so that the fleet does not wake as one.
        await asyncio.sleep(min(LONGEST_SLEEP_S, max(SHORTEST_SLEEP_S, seconds)) * random.uniform(1.0, 1.1))


@dataclass(slots=True)
class AdmissionQueues:
    """Every lane's room; what the processor sees of admission."""

    admission: Admission
    rooms: Mapping[str, AdmissionQueue]

    @classmethod
    def of(cls, admission: Admission, weights: Mapping[str, int]) -> "AdmissionQueues":
        return cls(admission, {lane: AdmissionQueue(lane, weight, admission) for lane, weight in weights.items()})

    async def admit(self, lane: str, ask: Ask, *, within_s: float) -> Reservation | NotAdmitted:
        patience_s = (ask.patience_ms + ask.enqueued_at_ms - time.time() * 1000) / 1000
        return await self.rooms[lane].admit(ask.token, ask.tokens, within_s=within_s, patience_s=patience_s)

    def vacancies(self, lane: str) -> int:
        return self.rooms[lane].vacancies

    async def pump(self) -> None:
        """Pumps every room for as long as the process lives."""
        async with asyncio.TaskGroup() as group:
            for room in self.rooms.values():
                group.create_task(room.pump(), name=f"pump:{room.lane}")


def _since(arrived: float) -> int:
    return round((asyncio.get_running_loop().time() - arrived) * 1000)
