"""Budget is shared among the lanes that want it, by weight, in whichever process they are."""

import heapq
import random
from collections import Counter
from dataclasses import dataclass, field

import pytest
import redis
from support.admission_parts import BURST, Budget, open_budget


async def shares(budget: Budget, weights: dict[str, int], seconds: int = 20) -> dict[str, int]:
    """Calls granted to each lane while all of them ask for more than there is."""
    granted = dict.fromkeys(weights, 0)
    for _ in range(seconds * 20):
        budget.advance(50)
        for lane in random.sample(list(weights), len(weights)):
            granted[lane] += len(await budget.ask(10, lane=lane, weight=weights[lane]))
    return granted


@pytest.mark.parametrize("weights", [{"a": 1, "b": 1}, {"a": 4, "b": 1}, {"a": 3, "b": 2, "c": 1}])
async def test_hungry_lanes_get_the_ratio_of_their_weights(budget: Budget, weights: dict[str, int]) -> None:
    granted = await shares(budget, weights)

    total = sum(granted.values())
    assert total == pytest.approx(200, abs=BURST)
    for lane, weight in weights.items():
        assert granted[lane] / total == pytest.approx(weight / sum(weights.values()), abs=0.03)


async def test_an_idle_lane_costs_nothing(budget: Budget) -> None:
    await shares(budget, {"a": 1, "b": 1}, seconds=5)

    assert (await shares(budget, {"b": 1}, seconds=10))["b"] == pytest.approx(100, abs=3)


async def test_a_lane_that_comes_back_gets_no_stored_credit(budget: Budget) -> None:
    await shares(budget, {"a": 1, "b": 1}, seconds=5)
    await shares(budget, {"b": 1}, seconds=20)

    granted = await shares(budget, {"a": 1, "b": 1}, seconds=10)
    assert granted["a"] == pytest.approx(granted["b"], abs=4)


async def test_a_lane_that_was_alone_owes_nothing_to_one_that_floods(budget: Budget) -> None:
    """An hour of light traffic is no debt: it never waited, so nobody waited for it."""
    for _ in range(300):
        budget.advance(500)
        await budget.ask(lane="a")
    await budget.drain(lane="b")

    granted = await shares(budget, {"b": 1, "a": 1}, seconds=10)

    assert granted["a"] == pytest.approx(granted["b"], abs=4)


async def test_a_trickle_is_served_at_once_beside_a_flood(budget: Budget) -> None:
    """Within its share a lane waits for the next earned call, not for the other lane's queue."""
    await shares(budget, {"flood": 1}, seconds=10)
    waits: list[int] = []
    for _ in range(20):
        arrived = budget.now_ms
        while not await budget.ask(lane="trickle"):
            budget.advance(25)
            await budget.ask(10, lane="flood")
        waits.append(budget.now_ms - arrived)
        for _ in range(16):
            budget.advance(25)
            await budget.ask(10, lane="flood")

    assert max(waits) <= 300


async def test_lanes_that_are_no_longer_used_are_forgotten(budget: Budget) -> None:
    """A lane a tenant, a thousand tenants: what every call reads stays as small as if there were one."""
    await budget.ask(lane="a")
    small = len(budget.state())
    for number in range(300):
        budget.advance(200)
        await budget.ask(2, lane=f"lane {number}")
    budget.advance(60_000)
    await budget.ask(lane="a")

    assert len(budget.state()) <= small + 4


@dataclass
class Fleet:
    """Processes that always have requests, and ask again when they are told to."""

    budget: Budget
    lanes: dict[str, int]
    """Weights."""
    due: list[tuple[int, int, str]]
    """When, by which process, and for which lane."""
    granted: "Counter[str]" = field(default_factory=Counter[str])
    asked: int = 0
    few: dict[int, int] = field(default_factory=dict[int, int])
    """Processes of the lane `few`, and since when each has one request; it has the next two seconds later."""

    @classmethod
    def of(cls, budget: Budget, lanes: dict[str, int], processes: int) -> "Fleet":
        return cls(budget, lanes, [(budget.now_ms, number, lane) for number in range(processes) for lane in lanes])

    async def run(self, seconds: int) -> None:
        end = self.budget.now_ms + seconds * 1000
        while self.due[0][0] <= end:
            at, number, lane = heapq.heappop(self.due)
            self.budget.advance(max(0, at - self.budget.now_ms))
            calls = await self.budget.ask(1 if lane == "few" else 32, lane=lane, weight=self.lanes[lane])
            await self.budget.ended(*calls)
            self.asked += 1
            self.granted[lane] += len(calls)
            back_at = self.budget.now_ms + min(1_000, max(50, self.budget.last.wait_ms))
            if lane == "few" and calls:
                back_at = self.few[number] = max(self.few[number] + 2_000, self.budget.now_ms)
            heapq.heappush(self.due, (back_at, number, lane))


@pytest.mark.parametrize("lanes", [{"a": 1}, {"a": 1, "b": 1}, {"a": 4, "b": 1}])
@pytest.mark.parametrize("processes", [1, 2, 7, 19])
async def test_more_processes_do_not_ask_more_often(budget: Budget, lanes: dict[str, int], processes: int) -> None:
    """Twenty questions a second a lane, and those of the first moment, use up all that there is, in its shares."""
    fleet = Fleet.of(budget, lanes, processes)

    await fleet.run(20)

    assert fleet.asked <= len(lanes) * (20 * 20 + processes)
    assert fleet.granted.total() == pytest.approx(200, abs=BURST)
    for lane, weight in lanes.items():
        assert fleet.granted[lane] / fleet.granted.total() == pytest.approx(weight / sum(lanes.values()), abs=0.04)


async def test_a_lane_of_one_process_keeps_its_share_beside_one_of_many(budget: Budget) -> None:
    fleet = Fleet.of(budget, {"many": 1}, 15)
    fleet.lanes["one"] = 1
    heapq.heappush(fleet.due, (budget.now_ms, 15, "one"))

    await fleet.run(20)

    assert fleet.granted["one"] == pytest.approx(fleet.granted["many"], abs=8)


@pytest.mark.parametrize("burst_s", [0.25, 2.0])
async def test_processes_with_few_requests_leave_no_budget_unused(
    valkey: redis.Redis, redis_url: str, burst_s: float
) -> None:
    """Forty processes with a request each, all at once and every two seconds, beside one that always has some."""
    async with open_budget(valkey, redis_url, requests_per_minute=6_000, burst_s=burst_s) as budget:
        fleet = Fleet.of(budget, {"always": 1}, 1)
        fleet.lanes["few"] = 4
        for number in range(40):
            fleet.few[number] = budget.now_ms
            heapq.heappush(fleet.due, (budget.now_ms, number, "few"))

        await fleet.run(10)

    assert fleet.granted.total() == pytest.approx(1_000, abs=100 * burst_s + 20)
    assert fleet.granted["few"] >= 40 * 4
