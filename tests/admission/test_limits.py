"""Limits apply at once to the whole fleet: from settings, from an operator, from headers, or from none."""

import pytest
import redis
from support.admission_parts import HOUR_MS, Budget, answered, open_budget

from worker.admission.grants import Limits


async def test_without_any_limit_known_a_few_calls_start_at_once(valkey: redis.Redis, redis_url: str) -> None:
    """And as many more as were answered, and once more as many."""
    async with open_budget(valkey, redis_url, burst_s=2.0) as budget:
        first = await budget.drain()
        budget.advance(100)
        await budget.ended(*first)
        second = await budget.drain()

        assert len(first) == 16
        assert len(second) == 32


async def test_new_limits_apply_at_once_to_every_process_and_survive_their_restart(budget: Budget) -> None:
    await budget.admission.override(rpm="6000", in_flight="30")
    restarted = budget.process()

    budget.advance(HOUR_MS)
    assert len(await budget.ask(50, by=restarted)) == 30
    assert (budget.last.reason, budget.last.per_second) == ("concurrency", 100)

    await budget.admission.override(in_flight="default")
    assert len(await budget.ask(20, by=restarted)) == 20
    await budget.admission.override(rpm="default")
    assert await budget.rate(10, by=restarted) == pytest.approx(10, abs=0.6)


async def test_new_limits_end_no_pause(budget: Budget) -> None:
    await budget.throttled(await budget.one(), 60)
    await budget.admission.override(rpm="6000")

    assert await budget.ask() == []
    assert (budget.last.reason, budget.last.wait_ms) == ("throttled", 60_000)


async def test_processes_with_different_settings_share_one_state(budget: Budget) -> None:
    """As during a rollout: each asks under its own limit, and nothing breaks."""
    newer = budget.process(Limits(requests_per_minute=1200))
    for _ in range(20):
        budget.advance(200)
        await budget.ask(3)
        await budget.ask(3, by=newer)

    assert budget.number("scale") == 1


@pytest.mark.parametrize(("tokens", "fits"), [(60_000, True), (60_001, False)])
def test_a_request_over_a_whole_minutes_tokens_never_fits(budget: Budget, tokens: int, *, fits: bool) -> None:
    assert budget.process(Limits(tokens_per_minute=60_000)).fits(tokens) is fits
    assert budget.process(Limits(requests_per_minute=1)).fits(tokens)


@pytest.mark.parametrize("header", ["", "many", "nan", "inf", "-5", "0"])
async def test_a_limit_header_that_is_no_number_teaches_nothing(
    valkey: redis.Redis, redis_url: str, header: str
) -> None:
    async with open_budget(valkey, redis_url, burst_s=2.0) as budget:
        await budget.ask()
        budget.advance(1_000)
        await budget.admission.report(await budget.one(), answered({"x-ratelimit-limit-requests": header}))

        *_, args = budget.runner.asked["report"]
        assert args["limit_rpm"] is None
        assert budget.number("hint") == 0
