"""The rate is learned from what the upstream refuses; `test_twins.py` holds it to the simulation."""

import pytest
import redis
from support.admission_parts import Budget, answered, open_budget

pytestmark = pytest.mark.limits(burst_s=2.0)


async def test_an_unknown_limit_is_found_and_kept(budget: Budget) -> None:
    """Ten a second behind silence: no header, no Retry-After, refusals alone."""
    level, refusals, passed = 10.0, 0, [0] * 4
    for tick in range(4 * 300):
        budget.advance(200)
        level = min(10.0, level + 2.0)
        for call in await budget.ask(20):
            if level < 1:
                refusals += 1
                await budget.throttled(call)
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
        await budget.throttled(call)
    scale = budget.number("scale")
    for call in calls[1:]:
        budget.advance(10)
        await budget.throttled(call)

    assert len(calls) > 1
    assert budget.number("scale") == scale


async def test_headers_are_climbed_to_quickly(budget: Budget) -> None:
    await budget.drain()
    budget.advance(1_000)
    await budget.admission.report(await budget.one(), answered({"x-ratelimit-limit-requests": "6000"}))
    await budget.rate(10)

    assert 95 <= await budget.rate(3) <= 98


async def test_one_refusal_in_a_hundred_leaves_the_rate_alone(valkey: redis.Redis, redis_url: str) -> None:
    """Another user of the gateway may be to blame; without this, a hundred calls a second became one."""
    async with open_budget(valkey, redis_url, requests_per_minute=6_000) as budget:
        granted = 0
        for _ in range(20):
            budget.advance(1_000)
            calls = await budget.drain()
            await budget.throttled(calls[0])
            await budget.ended(*calls)
            granted += len(calls)

        assert budget.number("scale") == 1
        assert granted == pytest.approx(2_000, rel=0.05)


async def test_a_crowd_of_refusals_cuts_the_rate(valkey: redis.Redis, redis_url: str) -> None:
    async with open_budget(valkey, redis_url, requests_per_minute=6_000) as budget:
        budget.advance(1_000)
        for call in (await budget.drain())[:10]:
            await budget.throttled(call)

        assert budget.number("scale") < 1


async def test_token_budgets_forgive_no_refusal(valkey: redis.Redis, redis_url: str) -> None:
    """The cost of a call is a guess there, so the rate may always be to blame."""
    async with open_budget(valkey, redis_url, tokens_per_minute=6_000) as budget:
        calls = await budget.drain(tokens=1)
        await budget.throttled(calls[-1])

        assert budget.number("scale") < 1
