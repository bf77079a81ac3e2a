"""May this call start now? One budget for the whole fleet, one waiting room per process.

`admit` waits locally, first come first served; one pump asks Redis for grants in bulk, so a full waiting room
costs no polling storm. Being deferred spends no attempt and no place in line.
"""

import asyncio
import math
import random
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from worker.scripts import Script, ScriptRunner

ADMISSION: Final = Script.load("admission.lua", even_when_full=frozenset({"settle", "pause", "resume"}))

BULK: Final = 64
"""Grants asked for at once."""

LONGEST_SLEEP_S: Final = 1.0
"""The pump looks again after this, so that an operator's resume or another process' refund is seen."""

CHARACTERS_PER_TOKEN: Final = 4
USUAL_OUTPUT_TOKENS: Final = 512
"""Reserved for a request that names no max_output_tokens."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the gateway allows, as far as known; 0 = unknown."""

    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    max_in_flight: int = 0
    burst_s: float = 2.0

    @property
    def quick_start(self) -> int:
        """How many requests this budget can start within one burst, or a fair guess."""
        return math.ceil(self.requests_per_minute * self.burst_s / 60) if self.requests_per_minute else 4 * BULK


@dataclass(frozen=True, slots=True)
class Reservation:
    """The right to make one call now; `tokens` were set aside for it."""

    token: str
    tokens: int
    waited_ms: int


class Reason(StrEnum):
    """Why a request was not admitted."""

    TIME = "time"
    """It could wait no longer."""
    NEVER = "never"
    """Its tokens exceed a whole minute's budget."""


@dataclass(frozen=True, slots=True)
class Deferred:
    reason: Reason
    waited_ms: int


@dataclass(eq=False, slots=True)
class _Waiter:
    token: str
    tokens: int
    granted: "asyncio.Future[None]"


def estimate_tokens(body: bytes, max_output_tokens: int | None) -> int:
    """Input tokens guessed from the body's size, plus what the answer may take."""
    return len(body) // CHARACTERS_PER_TOKEN + (max_output_tokens or USUAL_OUTPUT_TOKENS)


@dataclass(slots=True)
class Admission:
    runner: ScriptRunner
    limits: Limits
    lease_ms: int
    longest_pause_ms: int
    upstream: str = "default"
    _room: deque[_Waiter] = field(default_factory=deque[_Waiter])
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _closed_until: float = 0.0

    @property
    def vacancies(self) -> int:
        """How many more requests are worth taking from the lanes now."""
        if self._closed_until > asyncio.get_running_loop().time():
            return 0
        return max(0, self.limits.quick_start - len(self._room))

    async def admit(self, token: str, tokens: int, *, within_s: float) -> Reservation | Deferred:
        """Waits for a place in the budget, at most `within_s`."""
        if 0 < self.limits.tokens_per_minute < tokens:
            return Deferred(Reason.NEVER, 0)
        loop = asyncio.get_running_loop()
        arrived = loop.time()
        waiter = _Waiter(token, tokens, loop.create_future())
        self._room.append(waiter)
        self._news.set()
        try:
            async with asyncio.timeout(within_s):
                await waiter.granted
        except TimeoutError:
            return Deferred(Reason.TIME, round((loop.time() - arrived) * 1000))
        finally:
            if waiter in self._room:
                self._room.remove(waiter)
        return Reservation(token, tokens, round((loop.time() - arrived) * 1000))

    async def settle(self, reservation: Reservation, *, called: bool, used_tokens: int | None) -> None:
        """Gives back what the call did not use; everything when it was never made."""
        unused = reservation.tokens if not called else reservation.tokens - (used_tokens or reservation.tokens)
        await self.runner.call(ADMISSION, "settle", self.upstream, reservation.token, int(not called), unused)
        self._news.set()

    async def pause(self, seconds: float, reason: str) -> None:
        """Stops the whole fleet's calls for this long; a shorter pause never shortens a longer one."""
        left_ms = await self.runner.call(
            ADMISSION, "pause", self.upstream, round(seconds * 1000), self.longest_pause_ms, reason
        )
        self._close(int(left_ms))

    async def resume(self) -> None:
        """Ends a pause at once."""
        await self.runner.call(ADMISSION, "resume", self.upstream)
        self._closed_until = 0.0
        self._news.set()

    async def pump(self) -> None:
        """Moves waiters from the room to their calls, for as long as the process lives."""
        while True:
            await self._news.wait()
            self._news.clear()
            while self._room:
                wait_s = await self._ask(list(self._room)[:BULK])
                if wait_s:
                    await self._sleep(wait_s)

    async def _ask(self, waiters: list[_Waiter]) -> float:
        """Asks for grants in order of arrival; returns how long to wait before asking again."""
        limits = self.limits
        pairs = [part for waiter in waiters for part in (waiter.token, waiter.tokens)]
        granted, wait_ms, reason = await self.runner.call(
            ADMISSION,
            "admit",
            self.upstream,
            self.lease_ms,
            limits.requests_per_minute,
            limits.tokens_per_minute,
            limits.max_in_flight,
            round(limits.burst_s * 1000),
            *pairs,
        )
        await self._seat(waiters[: int(granted)])
        if reason and not granted and reason not in (b"requests", b"tokens", b"concurrency"):
            self._close(int(wait_ms))
            return int(wait_ms) / 1000 * random.uniform(1.0, 1.1)  # so that the fleet does not wake as one
        return int(wait_ms) / 1000

    async def _seat(self, granted: Iterable[_Waiter]) -> None:
        for waiter in granted:
            if waiter in self._room:
                self._room.remove(waiter)
            if waiter.granted.done():  # it left while the grant was on its way
                await self.settle(Reservation(waiter.token, waiter.tokens, 0), called=False, used_tokens=None)
            else:
                waiter.granted.set_result(None)

    async def _sleep(self, seconds: float) -> None:
        self._news.clear()
        try:
            async with asyncio.timeout(min(seconds, LONGEST_SLEEP_S)):
                await self._news.wait()
        except TimeoutError:
            return

    def _close(self, wait_ms: int) -> None:
        self._closed_until = asyncio.get_running_loop().time() + wait_ms / 1000
