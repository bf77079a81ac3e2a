"""The script learns exactly as the simulation does, in which thousands of gateways were tried."""

import random
from dataclasses import dataclass, field
from typing import Any

import pytest
from oracles.sim_controller import Controller
from support.admission_parts import HOUR_MS, PERMITS, QUOTA, Budget, process

from worker.admission.client import Admission, Limits, Reservation

pytestmark = pytest.mark.limits(burst_s=2.0)

LANE = "interactive"
FIELDS = {
    name: name.removesuffix("_ms") if name == "pause_until_ms" else name
    for name in (
        "at_ms",
        "scale",
        "ceiling",
        "hold_ms",
        "burst_ms",
        "requests_ms",
        "tokens_ms",
        "refund",
        "hint",
        "busy_ms",
        "passed_ms",
        "cut_at_ms",
        "pause_until_ms",
        "probing",
        "backoff_ms",
        "refusal_ms",
        "lenience",
    )
}
"""Of the simulation's state, and what the script's hash calls them."""

LIMITS: dict[str, dict[str, Any]] = {
    "requests known": {"rpm": 600},
    "tokens known": {"tpm": 60_000},
    "both known": {"rpm": 600, "tpm": 200_000, "burst_s": 5.0},
    "nothing known": {},
}


def controller(**settings: Any) -> Controller:
    return Controller(**settings)


@dataclass
class Twins:
    """One fleet twice: its budget on Valkey, and the simulation of it. Both see the same events."""

    budget: Budget
    script: Admission
    simulation: Any
    rng: random.Random
    calls: list[Reservation] = field(default_factory=list[Reservation])
    granted: int = 0
    ceilings: set[float] = field(default_factory=set[float])

    async def step(self) -> None:
        self.pass_time()
        ending = self.rng.random()
        if ending < 0.6 or not self.calls:
            await self.admit()
        elif ending < 0.85:
            await self.settle()
        elif ending < 0.95:
            await self.throttled()
        else:
            await self.learn()

    def pass_time(self) -> None:
        kind = self.rng.random()
        longest_ms = 0 if kind < 0.2 else 1_000 if kind < 0.8 else 10_000 if kind < 0.99 else HOUR_MS
        self.budget.advance(self.rng.randint(0, longest_ms))
        if kind > 0.995:
            self.budget.advance(-self.rng.randint(0, HOUR_MS))

    async def admit(self) -> None:
        costs = [self.rng.randint(1, 400) for _ in range(self.rng.randint(1, 12))]
        asked = [(f"{self.granted}-{number}", tokens) for number, tokens in enumerate(costs)]
        grant = await self.script.grant(LANE, 1, asked)

        granted, wait_ms = self.simulation.admit(self.budget.now_ms, LANE, 1.0, costs)

        assert grant.granted == granted
        assert grant.wait_ms == pytest.approx(wait_ms, abs=1.01)
        self.granted += granted
        self.calls += [Reservation(token, size, 0, grant.now_ms) for token, size in asked[:granted]]

    def one(self) -> Reservation:
        return self.calls.pop(self.rng.randrange(len(self.calls)))

    async def settle(self) -> None:
        call, called = self.one(), self.rng.random() < 0.8
        used = self.rng.randint(0, 500)
        await self.script.settle(call, used_tokens=used, called=called)
        if called:
            self.simulation.settle(self.budget.now_ms, call.tokens, used)
        else:
            self.simulation.give_back(self.budget.now_ms, call.tokens)

    async def throttled(self) -> None:
        call = self.one()
        retry_after_s = self.rng.choice([None, None, None, None, 0.5, 2])
        await self.script.throttled(call, retry_after_s)
        self.simulation.throttled(self.budget.now_ms, call.granted_at_ms, call.tokens, (retry_after_s or 0) * 1000)
        self.ceilings.add(self.simulation.state.ceiling)

    async def learn(self) -> None:
        limit = self.rng.choice(["60", "600", "12000"])
        await self.script.learn({"x-ratelimit-limit-requests": limit})
        if not self.script.limits.requests_per_minute:
            self.simulation.learn(float(limit))

    def agree(self) -> None:
        state = self.budget.state()
        expected = {name: float(getattr(self.simulation.state, name)) for name in FIELDS}
        assert {name: float(state[ours]) for name, ours in FIELDS.items()} == pytest.approx(
            expected, rel=1e-9, abs=1e-6
        )


@pytest.mark.parametrize("limits", LIMITS.values(), ids=LIMITS)
async def test_the_same_events_make_the_same_grants_and_the_same_state(budget: Budget, limits: dict[str, Any]) -> None:
    granted, ceilings = 0, set[float]()
    for seed in range(6):
        budget.redis.delete(QUOTA, PERMITS)
        script = process(budget.runner, limits_of(**limits), lease_ms=1_000 * HOUR_MS)
        simulation = controller(now_ms=budget.now_ms, **limits)
        twins = Twins(budget, script, simulation, random.Random(seed))
        await twins.admit()
        for _ in range(250):
            await twins.step()
            twins.agree()
        granted, ceilings = granted + twins.granted, ceilings | twins.ceilings

    assert granted > 200
    assert len(ceilings) > 3, "refusals must have cut the rate"


def limits_of(*, rpm: int = 0, tpm: int = 0, burst_s: float = 2.0) -> Limits:
    return Limits(rpm, tpm, 0, burst_s)


async def test_an_unknown_limit_is_found_and_kept(budget: Budget) -> None:
    """Ten a second behind silence: no header, no Retry-After, refusals alone."""
    level, refusals, passed = 10.0, 0, [0] * 4
    for tick in range(4 * 300):
        budget.advance(200)
        level = min(10.0, level + 2.0)
        for call in await budget.ask(20):
            if level < 1:
                refusals += 1
                await budget.admission.throttled(call, None)
            else:
                level -= 1.0
                passed[tick // 300] += 1

    assert refusals <= 0.05 * sum(passed)
    assert min(passed[2:]) >= 0.75 * 600


async def test_a_refused_call_of_before_the_cut_does_not_cut_again(budget: Budget) -> None:
    await budget.rate(30)
    budget.advance(1_000)
    calls = await budget.drain()
    budget.advance(200)
    for call in calls[:1]:
        await budget.admission.throttled(call, None)
    scale = budget.number("scale")
    for call in calls[1:]:
        budget.advance(10)
        await budget.admission.throttled(call, None)

    assert len(calls) > 1
    assert budget.number("scale") == scale


async def test_headers_are_climbed_to_quickly(budget: Budget) -> None:
    await budget.drain()
    await budget.admission.learn({"x-ratelimit-limit-requests": "6000"})
    await budget.rate(10)

    assert 95 <= await budget.rate(3) <= 98
