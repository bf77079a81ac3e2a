"""The rate is learned from what the upstream refuses; `test_twins.py` holds it to the simulation."""

import pytest
from support.admission_parts import Budget, answered

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
