"""Admission on a real Valkey whose clock the test moves, as seen by any number of processes."""

import itertools
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import pytest

from support.ledger_parts import RecordingRunner
from support.movable_clock import MovableClock, on_movable_clock
from worker.admission import client as admission_module
from worker.admission.client import ADMISSION, Admission, Gate, Grant, Limits, Reservation, UpstreamVerdict
from worker.storage.connection import RedisTarget

LEASE_MS: Final = 15_000
LONGEST_PAUSE_MS: Final = 900_000
PROBE_MS: Final = 60_000
HOUR_MS: Final = 3_600_000
CONFIRM_MS: Final = 5_000
KEY: Final = "authentication_failed"
WALLET: Final = "quota_exhausted"
BROKEN: Final = "breaker_open"
QUOTA: Final = "responses:quota:default"
PERMITS: Final = "responses:permits:default"


@dataclass
class Budget(MovableClock):
    """One upstream's budget: the server's clock, one process of the fleet, and Valkey from outside."""

    runner: RecordingRunner
    admission: Admission
    last: Grant = field(init=False, repr=False)
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    def process(self, limits: Limits | None = None, **settings: Any) -> Admission:
        """Another process, by default with the same settings."""
        return process(self.runner, limits or self.admission.limits, **settings)

    async def ask(
        self,
        count: int = 1,
        *,
        tokens: int = 1,
        lane: str = "interactive",
        weight: int = 1,
        by: Admission | None = None,
    ) -> list[Reservation]:
        """Asks for calls under new tokens; what was granted. `last` is the script's whole answer."""
        asking = by or self.admission
        asked = [(f"{lane}-{next(self._numbers)}", tokens) for _ in range(count)]
        self.last = await asking.grant(lane, weight, asked)
        gate: Gate = asking.gate if self.last.probe else ""
        return [Reservation(token, size, 0, self.last.now_ms, gate) for token, size in asked[: self.last.granted]]

    async def one(self, **how: Any) -> Reservation:
        """A call that must be granted."""
        (reservation,) = await self.ask(1, **how)
        return reservation

    async def drain(self, **how: Any) -> list[Reservation]:
        """Everything that may start now."""
        granted: list[Reservation] = []
        while more := await self.ask(50, **how):
            granted += more
        return granted

    async def ended(self, *calls: Reservation, verdict: UpstreamVerdict = "ok") -> None:
        for call in calls:
            await self.admission.settle(call, used_tokens=call.tokens, verdict=verdict)

    async def rate(self, seconds: int, *, step_ms: int = 100, **how: Any) -> float:
        """Calls granted a second to one that always asks; each ends at once."""
        granted = 0
        for _ in range(seconds * 1000 // step_ms):
            self.advance(step_ms)
            calls = await self.ask(50, **how)
            granted += len(calls)
            await self.ended(*calls, verdict="")
        return granted / seconds

    def state(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.redis.hgetall(QUOTA).items()}

    def number(self, name: str) -> float:
        return float(self.state()[name])

    def permits(self) -> int:
        return self.redis.zcard(PERMITS)


def process(runner: RecordingRunner, limits: Limits, **settings: Any) -> Admission:
    defaults: dict[str, Any] = {"lease_ms": LEASE_MS, "longest_pause_ms": LONGEST_PAUSE_MS, "probe_ms": PROBE_MS}
    return Admission(runner=runner, limits=limits, **defaults | settings)


@asynccontextmanager
async def open_budget(client: Any, url: str, **limits: Any) -> AsyncGenerator[Budget]:
    """A budget on an empty server: ten requests a second unless `limits` say otherwise."""
    runner = RecordingRunner(RedisTarget.parse(url).async_client())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(admission_module, "ADMISSION", on_movable_clock(ADMISSION))
        try:
            yield Budget(client, runner, process(runner, Limits(**limits or {"requests_per_minute": 600})))
        finally:
            await runner.aclose()


async def refused(budget: Budget, call: Reservation, gate: Gate = KEY, code: str = "authentication_failed") -> None:
    """A call ends as the processor ends it."""
    await budget.admission.settle(call, used_tokens=call.tokens)
    await budget.admission.refused(call, gate, code)


async def shut(budget: Budget, gate: Gate = KEY) -> None:
    """Refused and confirmed; the next probe is due in PROBE_MS."""
    await refused(budget, await budget.one(), gate, gate)
    budget.advance(CONFIRM_MS)
    await refused(budget, await budget.one(), gate, gate)


async def calls_ending(budget: Budget, *verdicts: UpstreamVerdict) -> None:
    for verdict in verdicts:
        await budget.ended(await budget.one(), verdict=verdict)


async def failing(budget: Budget, count: int) -> None:
    for _ in range(count):
        await calls_ending(budget, "failed")


async def open_breaker(budget: Budget) -> None:
    await failing(budget, 20)


async def probe_after(budget: Budget, within_ms: int = 600_000, step_ms: int = 500) -> tuple[int, Reservation]:
    """Asks steadily until a probe is granted: after how long, and the probe."""
    began = budget.now_ms
    while budget.now_ms - began <= within_ms:
        if granted := await budget.ask():
            return budget.now_ms - began, granted[0]
        budget.advance(step_ms)
    raise AssertionError(f"no probe within {within_ms} ms")
