"""Budget is shared among the lanes that want it, by weight, in whichever process they are."""

import random

import pytest
from support.admission_parts import BURST, Budget


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
