"""The script decides exactly as the simulated controller does, in which thousands of troubled worlds were tried.

`TWINS_ROUNDS=25` compares 90,000 steps instead of a few thousand.
"""

import json
import math
import os
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

import pytest
from oracles.controller import admission as oracle
from oracles.controller.pace import Pace
from support.admission_parts import HOUR_MS, Budget, ask, process
from support.twin_fields import FLIGHT, PACE, SLOW_START, UNWRITTEN
from support.twin_worlds import VERDICTS, WORLDS

from worker.admission.client import Admission, tenant_key
from worker.admission.evidence import Evidence, Verdict
from worker.admission.grants import Ask, Limits, Reservation

LANES: Final = {"interactive": 4, "batch": 1}
TENANTS: Final = ("one", "two", "three", "four")
GATES: Final = {"": "", "authentication_failed": "authentication", "quota_exhausted": "quota", "breaker_open": "failed"}
ROUNDS: Final = int(os.environ.get("TWINS_ROUNDS", "1"))


@dataclass(frozen=True, slots=True)
class Twin:
    """One call, as each of the two granted it."""

    script: Reservation
    simulated: oracle.Reservation


@dataclass
class Twins:
    """One fleet twice: on Valkey, and simulated. Both see the same events."""

    budget: Budget
    script: Admission
    simulated: oracle.Admission
    rng: random.Random
    calls: list[Twin] = field(default_factory=list[Twin])
    seen: Counter[str] = field(default_factory=Counter[str])
    asked: int = 0
    headers: bool = True
    troubled: bool = False
    """Whether one tenant at a time has troubles of its own."""

    async def step(self, world: dict[Verdict, float]) -> None:
        self.pass_time()
        choice = self.rng.random()
        if choice < 0.4 or not self.calls:
            await self.admit()
        elif choice < 0.43:
            await self.heard()
        else:
            await self.end(self.rng.choices(list(world), list(world.values()))[0])

    def verdict(self, verdict: Verdict, tenant: str) -> Verdict:
        troubled = self.troubled and TENANTS[self.asked // 700 % len(TENANTS)] == tenant
        return "failed" if troubled and verdict == "ok" and self.rng.random() < 0.9 else verdict

    def pass_time(self) -> None:
        kind = self.rng.random()
        longest_ms = 0 if kind < 0.2 else 300 if kind < 0.8 else 3_000 if kind < 0.98 else 70_000
        self.budget.advance(self.rng.randint(0, longest_ms))

    def request(self) -> Ask:
        """Some fresh, some short of time, some that failed before; a few with a body that others have as well."""
        self.asked += 1
        now_ms, rng = self.budget.now_ms, self.rng
        whole_ms = rng.choice([5_000, 60_000, HOUR_MS, HOUR_MS])
        enqueued_at_ms = now_ms - rng.randint(0, whole_ms // 2) * rng.randint(0, 2)
        return ask(
            f"r{self.asked}",
            rng.randint(1, 400),
            now_ms=now_ms,
            tenant=rng.choice(TENANTS[: 1 + self.asked // 300 % 4]),
            body=f"{self.asked:08}" if rng.random() < 0.9 else "the same",
            call_kind=rng.choice(["small|4", "large|12"]),
            enqueued_at_ms=enqueued_at_ms,
            ends_ms=enqueued_at_ms + whole_ms,
            failures=rng.choice([0, 0, 0, 1, 2]),
            refusals=rng.choice([0, 0, 0, 1]),
        )

    async def admit(self) -> None:
        asked = [self.request() for _ in range(self.rng.choice([1, 3, 12]))]
        lane = self.rng.choice(list(LANES))
        now_ms = self.budget.now_ms
        grant = await self.script.grant(lane, LANES[lane], asked)
        answers, wait_ms = self.simulated.admit(now_ms, [simulated(one, now_ms) for one in asked], lane, LANES[lane])

        assert [answer.word for answer in grant.answers] == [word for word, _ in answers]
        assert grant.wait_ms == pytest.approx(wait_ms, abs=1.01)
        assert GATES[self.script.gate] == self.simulated.shut.kind
        for one, answer, (_, reservation) in zip(asked, grant.answers, answers, strict=True):
            back_in_ms = self.simulated.back_in_ms.get(one.token, 0)
            self.seen["makes room"] += back_in_ms > 0
            if answer.word == "later":
                assert answer.number == pytest.approx(back_in_ms, abs=1.01)
            if reservation:
                assert answer.number == reservation.seq
                gate = self.script.gate if grant.probe else ""
                granted = Reservation(one.token, one.tokens, 0, now_ms, gate, answer.number, one)
                self.calls.append(Twin(granted, reservation))
        self.seen.update(answer.word for answer in grant.answers)

    async def heard(self) -> None:
        call = self.rng.choice(self.calls)
        if self.script.gate:
            await self.script.heard(call.script)
            self.simulated.heard(self.budget.now_ms, call.simulated)

    async def end(self, verdict: Verdict) -> None:
        call = self.calls.pop(self.rng.randrange(len(self.calls)))
        asked = call.script.asked
        assert asked
        verdict = self.verdict(verdict, asked.tenant)
        called = verdict != "unsent" and self.rng.random() < 0.95
        used = self.rng.randint(0, 500) * called
        retry_after_s = self.rng.choice([0, 0, 1, 5])
        limit = self.rng.choice([None, None, 600.0, 6_000.0]) if verdict == "ok" and self.headers else None
        said = Evidence(
            verdict=verdict,
            used_tokens=used,
            called=called,
            retry_after_s=retry_after_s,
            code="met",
            limit_rpm=limit,
        )
        shared = await self.script.tell(call.script, said)
        expected = self.simulated.report(
            self.budget.now_ms,
            call.simulated,
            VERDICTS[verdict],
            took_ms=max(verdict == "ok", self.budget.now_ms - call.script.granted_at_ms),
            scope="request" if verdict == "answered" else "unknown",
            retry_after_ms=retry_after_s * 1_000,
            again=asked.failures + asked.refusals > 0,
            used=used,
            called=called,
        )
        if limit:
            self.simulated.pace.learn(limit)

        assert shared == expected, verdict
        assert GATES[self.script.gate] == self.simulated.shut.kind, verdict
        self.seen.update([verdict, f"gate {self.script.gate}", f"shared {verdict}" if shared else ""])

    def agree(self) -> None:
        state = self.budget.state()
        simulated = self.simulated
        flight = {name: float(getattr(simulated.flight, field)) for name, field in FLIGHT.items()}
        assert {name: float(state.get(name, UNWRITTEN.get(name, 0))) for name in FLIGHT} == near(flight)
        pace = {name: float(getattr(simulated.pace.state, field)) for name, field in PACE.items()}
        assert {name: float(state[name]) for name in PACE} == near(pace)
        slow_start = {name: float(getattr(simulated.pace.state.slow, field)) for name, field in SLOW_START.items()}
        assert {name: float(state.get(name, 0)) for name in SLOW_START} == near(slow_start)
        others = ("seq", "re_left", "si_started", "sl_seq", "sl_refused", "sl_share", "sl_scale")
        ours = [float(state.get(name, UNWRITTEN.get(name, 0))) for name in others]
        slowed = simulated.slowed
        theirs = [simulated.seq, simulated.retries.left, simulated.silence.started]
        theirs += [slowed.seq, slowed.refused, slowed.share, slowed.scale]
        assert ours == near([float(number) for number in theirs])
        trial = simulated.trial
        rows = {tenant: list(row) for tenant, row in trial.rows.items()}
        assert json.loads(state.get("pr_rows", "{}")) == rows
        assert set(state.get("pr_tenants", "").split()) == trial.tenants
        assert float(state.get("pr_share", 0)) == near(trial.share)
        self.seen["limited"] += simulated.flight.limit < math.inf
        self.seen["judging"] += simulated.flight.ratio_before > 0
        self.seen["slower"] += pace["scale"] < 1
        self.seen["wider"] += slow_start["st_window"] > 16
        self.seen["searching"] += slow_start["st_searching"] > 0


def near(expected: Any) -> Any:
    return pytest.approx(expected, rel=1e-6, abs=1e-6)


def simulated(one: Ask, now_ms: int) -> oracle.Asked:
    return oracle.Asked(
        one.token,
        f"b{one.body[:8]}",
        tenant_key(one.tenant),
        one.call_kind,
        one.tokens,
        one.ends_ms - now_ms,
        one.ends_ms - one.enqueued_at_ms,
        one.failures + one.own,
    )


@pytest.fixture
async def twins(budget: Budget, request: pytest.FixtureRequest) -> Twins:
    limits: dict[str, float] = request.param
    known = Limits(int(limits.get("rpm", 0)), int(limits.get("tpm", 0)), int(limits.get("in_flight", 0)))
    script = process(budget.runner, known, lease_ms=1_000 * HOUR_MS, probe_ms=10_000)
    pace = Pace(now_ms=budget.now_ms, rpm=limits.get("rpm", 0), tpm=limits.get("tpm", 0))
    admission = oracle.Admission(pace, most_in_flight=known.max_in_flight)
    return Twins(budget, script, admission, random.Random(f"{limits}."))


@pytest.mark.parametrize(
    "twins",
    [{"rpm": 6_000}, {"rpm": 600, "tpm": 200_000}, {"rpm": 6_000, "in_flight": 12}, {}],
    ids=["requests known", "both known", "in flight limited", "nothing known"],
    indirect=True,
)
async def test_the_same_events_make_the_same_answers_and_the_same_state(twins: Twins) -> None:
    """Whole outages one after the other, in worlds that change their mood."""
    twins.troubled = True
    await twins.admit()
    moods = [*WORLDS.values()] * ROUNDS
    twins.rng.shuffle(moods)
    for mood in moods:
        for _ in range(100):
            await twins.step(mood)
            twins.agree()

    happened = {"go", "wait", "late", "later", "makes room", "gate authentication_failed", "gate quota_exhausted"}
    assert {event for event in happened if not twins.seen[event]} == set()
    assert sum(count for event, count in twins.seen.items() if event.startswith("shared")) > 20


@pytest.mark.parametrize("twins", [{}], ids=["nothing known"], indirect=True)
@pytest.mark.parametrize("refused", [0.5, 0.9])
async def test_a_limit_is_found_alike(twins: Twins, refused: float) -> None:
    """From the first calls to the first refusal, and on to the second."""
    twins.headers = False
    for _ in range(25):
        for _ in range(4):
            await twins.admit()
        twins.budget.advance(twins.rng.randint(50, 250))
        while twins.calls:
            await twins.end("ok")
        twins.agree()
    for _ in range(120):
        await twins.step({"ok": 1 - refused, "throttled": refused})
        twins.agree()

    assert {event for event in ("wider", "searching") if not twins.seen[event]} == set()


@pytest.mark.parametrize("twins", [{"rpm": 600_000}], ids=["requests known"], indirect=True)
async def test_a_cut_for_slowness_is_judged_alike(twins: Twins) -> None:
    """Calls take three times as long, and fewer of them are no faster; then they are quick again."""
    for took_ms in (100, 300, 100):
        for _ in range(40):
            for _ in range(4):
                await twins.admit()
            twins.budget.advance(took_ms)
            while twins.calls:
                await twins.end("ok")
            twins.agree()

    assert twins.seen["judging"]
    assert twins.simulated.flight.ratio_before == 0
