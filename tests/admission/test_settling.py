"""A call costs what it used, once, whoever reports it and however late; one that was never made costs nothing."""

import pytest
import redis
from support.admission_parts import LEASE_MS, QUOTA, Budget, open_budget, probe_after, shut


@pytest.mark.parametrize("believed", [0.0, 0.5, 1.0])
async def test_settling_gives_back_what_was_not_used_as_far_as_the_upstream_does(
    valkey: redis.Redis, redis_url: str, believed: float
) -> None:
    async with open_budget(valkey, redis_url, tokens_per_minute=60_000) as budget:
        call = await budget.one(tokens=400)
        before = budget.number("tokens_ms")
        valkey.hset(QUOTA, "refund", believed)

        await budget.tell(call, "ok", used=100)

        assert budget.number("tokens_ms") == pytest.approx(before + 300 * believed)


async def test_a_call_that_used_more_than_it_reserved_owes_the_rest(valkey: redis.Redis, redis_url: str) -> None:
    async with open_budget(valkey, redis_url, tokens_per_minute=60_000) as budget:
        call = await budget.one(tokens=100)
        await budget.tell(call, "ok", used=5_000)

        assert await budget.ask() == []
        assert 4_000 < budget.last.wait_ms < 5_000


async def test_a_request_larger_than_the_burst_waits_for_a_full_bucket_and_then_owes(
    valkey: redis.Redis, redis_url: str
) -> None:
    async with open_budget(valkey, redis_url, tokens_per_minute=60_000) as budget:
        await budget.one(tokens=1)
        assert await budget.ask(tokens=30_000) == []

        budget.advance(2_000)
        assert len(await budget.ask(tokens=30_000)) == 1
        assert await budget.ask(tokens=1) == []
        assert budget.last.wait_ms == pytest.approx(28_001, abs=2)


async def test_a_call_that_was_never_made_costs_nothing(budget: Budget) -> None:
    for _ in range(50):
        await budget.unsent(await budget.one())

    assert len(await budget.drain()) == 5


async def test_probes_that_never_called_give_nothing_back(budget: Budget) -> None:
    """They were granted without a charge: an unreachable gateway is no way to fill the budget."""
    await shut(budget)
    before = budget.number("requests_ms"), budget.number("passed_ms")
    for _ in range(5):
        _, probe = await probe_after(budget)
        await budget.unsent(probe)

    assert budget.number("passed_ms") == before[1]
    assert budget.number("requests_ms") <= 2_000


async def test_a_second_report_does_nothing(budget: Budget) -> None:
    call = await budget.one()
    await budget.unsent(call)
    before = budget.state()

    await budget.unsent(call)
    await budget.runner.repeat("report")
    await budget.tell(call, "failed", used=500)

    assert budget.state() == before


async def test_the_permits_of_a_dead_worker_expire_and_settling_them_late_does_nothing(
    valkey: redis.Redis, redis_url: str
) -> None:
    async with open_budget(valkey, redis_url, requests_per_minute=6000, max_in_flight=2) as budget:
        dead = await budget.drain()
        budget.advance(LEASE_MS - 1)
        assert await budget.ask() == []

        budget.advance(1)
        alive = await budget.drain()
        assert (len(alive), budget.permits()) == (2, 2)
        before = budget.state()

        for call in dead:
            await budget.tell(call, "failed", called=False)

        assert (budget.state(), budget.permits()) == (before, 2)


@pytest.mark.parametrize("took_ms", [100, None], ids=["the gateway's time", "not told"])
async def test_a_slow_way_to_redis_is_no_congestion_of_the_gateway(
    valkey: redis.Redis, redis_url: str, took_ms: int | None
) -> None:
    """Fewer calls at once would not make it faster; without the gateway's own time it cannot be told apart."""
    async with open_budget(valkey, redis_url, requests_per_minute=60_000) as budget:
        for way_ms in (0, 0, 0, 300, 300):
            for _ in range(6):
                budget.advance(2_000)
                calls = await budget.ask(50)
                budget.advance(100 + way_ms)
                for call in calls:
                    await budget.tell(call, "ok", took_ms=took_ms)

        assert ("fl_limit" in budget.state()) is (took_ms is None)
