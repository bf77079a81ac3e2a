"""Requests wait here for the budget: one room a lane, first come first served among those that can finish.

A request leaves its room with a reservation, or without one:

- at once if its call could not end before its deadline (LATE), or if it makes room for others (LATER): it was called
  before and retries are more than their share of the fleet's calls, or its tenant is on probation;
- with the gate's code if the upstream is out of order for longer than its patience (GATE). Patience runs from the
  moment at which a probe confirmed the trouble, or from enqueueing if that was later. When it is over, all who waited
  too long leave in one round, and the next ones are taken at once.
"""

import asyncio
import math
import random
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from worker.admission.asking import BULK, Asking
from worker.admission.granting import Granting
from worker.admission.grants import Answer, Ask, Grant, NotAdmitted, Reason, Reservation
from worker.admission.places import Places
from worker.gateway.upstream import Call
from worker.storage.scripts import ScriptError

RINGING_S: Final = 0.005
"""Between an answer of no and the next question where calls of this process end: each may have made room for one."""

SHORTEST_SLEEP_S: Final = 0.05
"""A process with a full room asks at most this often, and once more for each call of its own that ends.

Where budget is short, the script lets the processes of a lane ask in turn, as far apart where each has enough requests.
"""

LONGEST_SLEEP_S: Final = 1.0
"""The pump looks again after this, so that an operator's resume or another process' refund is seen."""

RUNG: Final = frozenset({"concurrency", "authentication_failed", "quota_exhausted", "breaker_open"})
"""Reasons to wait that the end of a call may remove: a place, or a gate that a probe opens."""

SHORTEST_ROOM: Final = 4
GATED_ROOM: Final = 16
"""Requests still taken while the upstream is out of order, so that deadlines and patience are honoured."""


@dataclass(eq=False, slots=True)
class _Waiter:
    ask: Ask
    arrived: float
    seat: "asyncio.Future[Reservation | NotAdmitted]"

    def seen(self) -> Reservation | NotAdmitted | None:
        """The grant that arrived in the same loop step as the timeout."""
        return self.seat.result() if self.seat.done() and not self.seat.cancelled() else None

    @property
    def waited_ms(self) -> int:
        return round((asyncio.get_running_loop().time() - self.arrived) * 1000)

    def impatient(self, grant: Grant) -> bool:
        """Whether the request has waited too long for an upstream whose trouble is confirmed."""
        confirmed_at_ms = grant.outage(self.ask.model).confirmed_at_ms
        began_ms = max(confirmed_at_ms, self.ask.enqueued_at_ms)
        return confirmed_at_ms > 0 and grant.now_ms >= began_ms + self.ask.patience_ms


@dataclass(slots=True)
class AdmissionQueue:
    """One lane's waiting room in this process."""

    lane: str
    weight: int
    admission: Granting
    places: Places
    _waiters: deque[_Waiter] = field(default_factory=deque[_Waiter])
    left: Callable[[], None] = lambda: None
    """Called whenever a request leaves: the room has a vacancy."""
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _ended: asyncio.Event = field(default_factory=asyncio.Event)
    _asking: Asking = field(default_factory=Asking)
    _size: int = SHORTEST_ROOM
    _dismissing: bool = False
    """Whether the last round sent somebody away for the gate: then the lane holds more of them."""

    @property
    def vacancies(self) -> int:
        """The number of further requests of this lane that are worth taking now."""
        gated = BULK if self._dismissing else GATED_ROOM
        size = gated if self.admission.gate or self.admission.paused else self._size
        return max(0, size - len(self._waiters))

    @property
    def free(self) -> bool:
        """Whether one more would be asked for at once, and nothing is known to keep it from its call."""
        return len(self._waiters) < self.places.free and not (self.admission.gate or self.admission.paused)

    async def admit(self, ask: Ask, *, within_s: float) -> Reservation | NotAdmitted:
        """Waits for a grant, at most `within_s`."""
        if not self.admission.fits(ask.tokens):
            return NotAdmitted(Reason.NEVER, 0)
        loop = asyncio.get_running_loop()
        waiter = _Waiter(ask, loop.time(), loop.create_future())
        self._waiters.append(waiter)
        if len(self._waiters) == 1:
            self._news.set()
        try:
            async with asyncio.timeout(within_s):
                return await waiter.seat
        except TimeoutError:
            return waiter.seen() or NotAdmitted(Reason.TIME, waiter.waited_ms)
        except asyncio.CancelledError:
            if isinstance(unused := waiter.seen(), Reservation):
                self.places.leave(ask.token)
                await self.admission.report(unused, None)
            raise
        finally:
            self._leave(waiter)

    def call_ended(self) -> None:
        """Those who wait for a place, here or in the fleet, need not wait for their next look."""
        self._ended.set()

    async def pump(self) -> None:
        """Moves waiters to their calls for as long as the process lives."""
        while True:
            self._news.clear()
            self._ended.clear()
            if not self._waiters:
                await self._news.wait()
                continue
            if not (places := self.places.free):
                await self._ended.wait()
                continue
            try:
                grant = await self._round(self._next(places))
            except ScriptError as error:
                self.admission.events.script_refused(error)
                await self._sleep(LONGEST_SLEEP_S)
                continue
            if self._dismissing:
                await self._sleep(SHORTEST_SLEEP_S)
            elif grant.wait_ms and grant.reason in RUNG:
                await self._sleep_until_a_call_ends(grant.wait_ms / 1000)
            elif grant.wait_ms:
                await self._sleep(grant.wait_ms / 1000)

    def _next(self, places: int) -> list[_Waiter]:
        """Those to ask for."""
        waiting = list(self._waiters)
        now = asyncio.get_running_loop().time()
        return [waiting[place] for place in self._asking.chosen([each.ask for each in waiting], places, now)]

    async def _round(self, waiters: list[_Waiter]) -> Grant:
        """Asks for the first of those who wait, and sends away all who need not wait any longer."""
        grant = await self._asked([waiter.ask for waiter in waiters])
        self._asking.learn(grant)
        self._size = max(SHORTEST_ROOM, math.ceil(grant.per_second * self.admission.ahead_s))
        answered = list(zip(waiters, grant.answers, strict=True))
        for waiter, answer in answered:
            if answer.word == "go":
                await self._seat(waiter, answer, grant)
            elif answer.word == "late":
                left_ms = waiter.ask.ends_ms - grant.now_ms
                self._dismiss(waiter, NotAdmitted(Reason.LATE, waiter.waited_ms, "", answer.number, left_ms))
        self._end_patience(grant)
        for waiter, answer in answered:
            if answer.word == "later" and waiter in self._waiters:
                self._dismiss(waiter, NotAdmitted(Reason.LATER, waiter.waited_ms, "", answer.number))
        return grant

    async def _asked(self, asks: list[Ask]) -> Grant:
        """The fleet's answers; whoever may go has a place of this process from now on."""
        self.places.ask(len(asks))
        try:
            grant = await self.admission.grant(self.lane, self.weight, asks)
        finally:
            self.places.answered(len(asks))
        for ask, answer in zip(asks, grant.answers, strict=True):
            if answer.word == "go":
                self.places.take(ask.token)
        return grant

    async def _seat(self, waiter: _Waiter, answer: Answer, grant: Grant) -> None:
        ask = waiter.ask
        way = (answer.gate, answer.number, ask, answer.route, answer.seqs)
        reservation = Reservation(ask.token, ask.tokens, waiter.waited_ms, grant.now_ms, *way)
        self._leave(waiter)
        if waiter.seat.done():  # it left while the grant was on its way
            self.places.leave(ask.token)
            await self.admission.report(reservation, None)
        else:
            waiter.seat.set_result(reservation)

    def _end_patience(self, grant: Grant) -> None:
        impatient = [waiter for waiter in self._waiters if not self.admission.paused and waiter.impatient(grant)]
        for waiter in impatient:
            self._dismiss(waiter, NotAdmitted(Reason.GATE, waiter.waited_ms, grant.outage(waiter.ask.model).code))
        self._dismissing = bool(impatient)

    def _dismiss(self, waiter: _Waiter, why: NotAdmitted) -> None:
        self._leave(waiter)
        if not waiter.seat.done():
            waiter.seat.set_result(why)

    def _leave(self, waiter: _Waiter) -> None:
        if waiter in self._waiters:
            self._waiters.remove(waiter)
            self.left()

    async def _sleep_until_a_call_ends(self, seconds: float) -> None:
        await asyncio.sleep(RINGING_S)
        with suppress(TimeoutError):
            async with asyncio.timeout(min(LONGEST_SLEEP_S, max(SHORTEST_SLEEP_S, seconds))):
                await self._ended.wait()

    async def _sleep(self, seconds: float) -> None:
        # A tenth of spread, so that the fleet does not wake as one.
        await asyncio.sleep(min(LONGEST_SLEEP_S, max(SHORTEST_SLEEP_S, seconds)) * random.uniform(1.0, 1.1))


@dataclass(slots=True)
class AdmissionQueues:
    """Every lane's room; what the processor sees of admission."""

    admission: Granting
    places: Places
    rooms: Mapping[str, AdmissionQueue]

    @classmethod
    def of(
        cls, admission: Granting, weights: Mapping[str, int], places: Places, left: Callable[[], None] = lambda: None
    ) -> "AdmissionQueues":
        rooms = {lane: AdmissionQueue(lane, weight, admission, places, left=left) for lane, weight in weights.items()}
        return cls(admission, places, rooms)

    def free(self, lane: str) -> bool:
        return self.rooms[lane].free

    async def admit(self, lane: str, ask: Ask, *, within_s: float) -> Reservation | NotAdmitted:
        return await self.rooms[lane].admit(ask, within_s=within_s)

    async def report(self, reservation: Reservation, call: Call | None) -> bool:
        """Ends a reservation as `client.Admission.report` does, and wakes those who wait for its place."""
        self.leave(reservation.token)  # the next question follows this report on the same connection
        try:
            return await self.admission.report(reservation, call)
        finally:
            self._ring()

    def leave(self, token: str) -> None:
        """Frees the place of a request whose call is over, if it has one."""
        if self.places.leave(token):
            self._ring()

    def _ring(self) -> None:
        for room in self.rooms.values():
            room.call_ended()

    async def heard(self, reservation: Reservation) -> None:
        await self.admission.heard(reservation)

    def vacancies(self, lane: str) -> int:
        return self.rooms[lane].vacancies

    async def pump(self) -> None:
        """Pumps every room for as long as the process lives."""
        async with asyncio.TaskGroup() as group:
            for room in self.rooms.values():
                group.create_task(room.pump(), name=f"pump:{room.lane}")
