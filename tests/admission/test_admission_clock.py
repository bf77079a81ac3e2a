"""A server clock that jumps by an hour, there and back: neither a windfall nor a drought."""

import pytest
import redis
from support.admission_parts import BURST, HOUR_MS, LEASE_MS, Budget, open_budget


@pytest.mark.parametrize("jump_ms", [HOUR_MS, -HOUR_MS])
async def test_a_clock_that_jumps_gives_a_burst_at_most(budget: Budget, jump_ms: int) -> None:
    """There and back again: neither a windfall nor a drought."""
    await budget.ended(*await budget.drain())
    for jump in (jump_ms, -jump_ms):
        budget.advance(jump)
        calls = await budget.drain()
        assert len(calls) <= BURST
        budget.advance(1000)
        more = await budget.drain()
        assert len(more) == 10
        await budget.ended(*calls, *more)


async def test_what_was_to_come_stays_as_far_away_when_the_clock_goes_back(budget: Budget) -> None:
    """A pause, a cut and a probe of the hour before would otherwise last, or be taken for news, for an hour."""
    for call in await budget.ask(6):  # a crowd: one alone is forgiven
        await budget.throttled(call, 10)
    budget.advance(-HOUR_MS)
    assert await budget.ask() == []
    assert 9_000 <= budget.last.wait_ms <= 10_000

    budget.advance(10_100)  # a pause earns no budget
    again = await budget.one()
    await budget.throttled(again)

    assert budget.number("cut_at_ms") == budget.now_ms


async def test_permits_of_before_the_clock_went_back_expire_all_the_same(valkey: redis.Redis, redis_url: str) -> None:
    async with open_budget(valkey, redis_url, requests_per_minute=600, max_in_flight=1) as budget:
        await budget.one()
        budget.advance(-HOUR_MS)
        assert await budget.ask() == []
        budget.advance(LEASE_MS)

        assert len(await budget.ask()) == 1


async def test_a_lane_that_waited_before_the_clock_went_back_does_not_hold_up_the_others(budget: Budget) -> None:
    await budget.rate(20, lane="batch")
    await budget.drain(lane="interactive")
    budget.advance(-HOUR_MS)
    assert await budget.ask(lane="batch") == []
    budget.advance(2_000)

    assert len(await budget.drain(lane="batch")) >= 10
