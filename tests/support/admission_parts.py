"""Admission on a real Valkey whose clock the test moves, as seen by any number of processes."""

import itertools
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import pytest

from support.ledger_parts import RecordingRunner
from support.movable_clock import MovableClock, on_movable_clock
from worker.admission import client as admission_module
from worker.admission.client import Admission
from worker.admission.commands import ADMISSION
from worker.admission.evidence import Evidence, Verdict
from worker.admission.grants import Ask, Gate, Grant, Limits, Reservation
from worker.gateway.upstream import Answer, Call
from worker.storage.connection import RedisTarget

LEASE_MS: Final = 15_000
LONGEST_PAUSE_MS: Final = 900_000
PROBE_MS: Final = 60_000
HOUR_MS: Final = 3_600_000
CONFIRM_MS: Final = 1_000
KEY: Final[Gate] = "authentication_failed"
WALLET: Final[Gate] = "quota_exhausted"
BROKEN: Final[Gate] = "breaker_open"
BURST: Final = 20
"""Two seconds of 600 a minute."""
BREAKER_CALLS: Final = 19
"""Failures in a row that open the breaker."""
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
        **said: Any,
    ) -> list[Reservation]:
        """Asks for calls under new tokens; what was granted. `last` is the script's whole answer."""
        asking = by or self.admission
        asked = [self.asked(f"{lane}-{next(self._numbers)}", tokens, **said) for _ in range(count)]
        self.last = await asking.grant(lane, weight, asked)
        return reservations(asking, asked, self.last)

    def asked(self, token: str, tokens: int = 1, **said: Any) -> Ask:
        """A request of its own body, with an hour's time; of one tenant, unless said otherwise."""
        return ask(token, tokens, now_ms=self.now_ms, **said)

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

    async def tell(
        self, call: Reservation, verdict: Verdict = "unclear", *, used: int | None = None, **said: Any
    ) -> bool:
        """A call ends; unless said otherwise it used all it reserved and says nothing of the upstream."""
        used_tokens = call.tokens if used is None else used
        facts: dict[str, Any] = {"code": "upstream_error"} | said
        return await self.admission.tell(call, Evidence(verdict=verdict, used_tokens=used_tokens, **facts))

    async def unsent(self, call: Reservation) -> None:
        """A call ends that the upstream never saw."""
        await self.tell(call, "unsent", used=0, called=False)

    async def also(self, verdict: Verdict, **said: Any) -> None:
        """Another request of another tenant meets this as well, in a call that was never charged."""
        other = self.asked(f"also-{next(self._numbers)}", tenant="also")
        self.redis.zadd(PERMITS, {other.token: self.now_ms + LEASE_MS})
        seq = int(self.state().get("seq", 0))
        await self.tell(Reservation(other.token, 1, 0, self.now_ms, BROKEN, seq, other), verdict, **said)

    async def throttled(self, call: Reservation, retry_after_s: float | None = None) -> bool:
        """A call is refused that others share."""
        wait_s = retry_after_s or 0
        await self.also("throttled", retry_after_s=wait_s)
        return await self.tell(call, "throttled", retry_after_s=wait_s)

    async def ended(self, *calls: Reservation, verdict: Verdict = "ok") -> None:
        for call in calls:
            await self.tell(call, verdict)

    async def rate(self, seconds: int, *, step_ms: int = 100, **how: Any) -> float:
        """Calls granted a second to one that always asks; each ends at once."""
        granted = 0
        for _ in range(seconds * 1000 // step_ms):
            self.advance(step_ms)
            calls = await self.ask(50, **how)
            granted += len(calls)
            await self.ended(*calls, verdict="unclear")
        return granted / seconds

    def state(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.redis.hgetall(QUOTA).items()}

    def number(self, name: str) -> float:
        return float(self.state()[name])

    def permits(self) -> int:
        return self.redis.zcard(PERMITS)


def answered(headers: Mapping[str, str] | None = None) -> Call:
    """A call that was answered well, by a gateway that did not say what it used."""
    return Call(
        outcome=Answer(raw=b"{}", status="completed"),
        http_status=200,
        upstream_request_id=None,
        duration_ms=1,
        headers=headers or {},
    )


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


def ask(token: str, tokens: int = 1, *, now_ms: int, **said: Any) -> Ask:
    defaults: dict[str, Any] = {
        "tenant": "acme",
        "body": token[-8:],
        "call_kind": "",
        "enqueued_at_ms": now_ms,
        "ends_ms": now_ms + HOUR_MS,
    }
    return Ask(token=token, tokens=tokens, **defaults | said)


def reservations(asking: Admission, asked: Sequence[Ask], grant: Grant) -> list[Reservation]:
    """The calls that were granted."""
    gate: Gate = asking.gate if grant.probe else ""
    return [
        Reservation(one.token, one.tokens, 0, grant.now_ms, gate, answer.number, one)
        for one, answer in zip(asked, grant.answers, strict=True)
        if answer.word == "go"
    ]


VERDICTS: Final[dict[Gate, Verdict]] = {KEY: "authentication", WALLET: "quota", BROKEN: "failed"}


async def refused(budget: Budget, call: Reservation, gate: Gate = KEY, code: str = "") -> bool:
    """A call met a dead key, an empty wallet, or a broken gateway."""
    return await budget.tell(call, VERDICTS[gate], code=code or gate)


async def shut(budget: Budget, gate: Gate = KEY) -> None:
    """Refused twice, and by a probe; the next probe is due in PROBE_MS."""
    for call in await budget.ask(2):
        await refused(budget, call, gate)
    budget.advance(CONFIRM_MS)
    await refused(budget, await budget.one(tenant="prober"), gate)


async def failing(budget: Budget, count: int) -> None:
    """One after the other."""
    for _ in range(count):
        await budget.tell(await budget.one(), "failed", code="upstream_error")


async def open_breaker(budget: Budget) -> None:
    await failing(budget, BREAKER_CALLS)


async def probe_after(budget: Budget, within_ms: int = 600_000, step_ms: int = 500) -> tuple[int, Reservation]:
    """Asks steadily, for ever other tenants, until a probe is granted: after how long, and the probe."""
    began = budget.now_ms
    while budget.now_ms - began <= within_ms:
        if granted := await budget.ask(tenant=f"prober-{budget.now_ms}"):
            return budget.now_ms - began, granted[0]
        budget.advance(step_ms)
    raise AssertionError(f"no probe within {within_ms} ms")
