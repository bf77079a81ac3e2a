"""The fleet's budget is spent by one atomic decision at a time: a burst and then the rate, whoever asks."""

import random

import pytest
import redis
from support.admission_parts import BURST, HOUR_MS, LEASE_MS, PERMITS, QUOTA, Budget, open_budget

from worker.storage.scripts import ScriptError

TURN_MS = 50


async def test_a_full_bucket_is_one_burst_and_then_the_rate(budget: Budget) -> None:
    await budget.ended(*await budget.drain())
    budget.advance(HOUR_MS)

    assert len(await budget.drain()) == BURST
    assert budget.last.reason == "requests"
    assert 1 <= budget.last.wait_ms <= 100 + TURN_MS
    assert await budget.rate(10) == pytest.approx(10, abs=0.1)


async def test_a_fleet_that_just_started_does_not_begin_with_a_whole_burst(budget: Budget) -> None:
    """The process before it may have just spent the gateway's."""
    assert len(await budget.drain()) == 5


async def test_refill_is_continuous(budget: Budget) -> None:
    await budget.drain()

    for _ in range(20):
        budget.advance(99)
        early = await budget.ask()
        budget.advance(1)
        assert (early, len(await budget.drain())) == ([], 1)


async def test_bulk_is_granted_in_order_and_each_call_wholly_or_not_at_all(valkey: redis.Redis, redis_url: str) -> None:
    async with open_budget(
        valkey, redis_url, requests_per_minute=600, tokens_per_minute=60_000, max_in_flight=4
    ) as budget:
        await budget.ended(*await budget.drain())
        budget.advance(HOUR_MS)
        sizes = [("a", 900), ("b", 900), ("c", 300), ("d", 1)]

        grant = await budget.admission.grant("interactive", 1, [budget.asked(*size) for size in sizes])

        assert [answer.word for answer in grant.answers] == ["go", "go", "wait", "wait"]
        assert grant.reason == "tokens"
        assert set(valkey.zrange(PERMITS, 0, -1)) == {b"a", b"b"}  # pyright: ignore[reportUnknownMemberType, reportArgumentType]  # redis-py types both colours as one
        assert budget.number("requests_ms") == pytest.approx(2000 - 2 * 100)
        assert budget.number("tokens_ms") == pytest.approx(2000 - 1800)


async def test_calls_in_flight_are_limited_and_refused_calls_cost_no_budget(
    valkey: redis.Redis, redis_url: str
) -> None:
    async with open_budget(valkey, redis_url, requests_per_minute=6000, max_in_flight=3) as budget:
        calls = await budget.drain()
        left = budget.number("requests_ms")
        assert (len(calls), budget.last.reason, budget.permits()) == (3, "concurrency", 3)

        assert await budget.drain() == []
        await budget.ended(calls[0])

        assert budget.number("requests_ms") == left
        assert len(await budget.drain()) == 1


async def test_the_budget_is_one_for_all_processes(budget: Budget) -> None:
    processes = [budget.process() for _ in range(8)]

    granted = [await budget.ask(by=random.choice(processes)) for _ in range(50)]

    assert sum(map(len, granted)) == 5


async def test_asking_again_after_a_lost_reply_is_answered_the_same_and_charged_once(budget: Budget) -> None:
    calls = await budget.ask(3)
    before = budget.state()

    for _ in range(10):
        assert (await budget.runner.repeat("admit")).answers[::2] == (b"go", b"go", b"go")

    assert (budget.state(), budget.permits()) == (before, 3)
    await budget.ended(*calls)
    assert budget.permits() == 0


async def test_random_traffic_never_outruns_the_rate_nor_leaks_a_permit(budget: Budget) -> None:
    """Calls of several processes, replies lost, calls never made, workers dying: granted <= burst + rate x time."""
    rng = random.Random(7)
    processes = [budget.process() for _ in range(3)]
    began, open_calls, charged = budget.now_ms, list(await budget.drain()), 5
    for _ in range(300):
        budget.advance(rng.randrange(0, 400))
        calls = await budget.ask(rng.randrange(1, 12), by=rng.choice(processes), lane=rng.choice(["a", "b"]))
        if rng.random() < 0.3:
            await budget.runner.repeat("admit")
        open_calls += calls
        charged += len(calls)
        rng.shuffle(open_calls)
        for _ in range(min(len(open_calls), rng.randrange(12))):
            call, called = open_calls.pop(), rng.random() < 0.8
            charged -= not called
            await (budget.ended(call) if called else budget.unsent(call))
        assert charged <= 5 + BURST + (budget.now_ms - began) / 100
    budget.advance(LEASE_MS)
    await budget.one()

    assert budget.permits() == 1


async def test_a_key_that_holds_something_else_is_an_error_and_no_grant(budget: Budget, valkey: redis.Redis) -> None:
    valkey.set(QUOTA, "x")

    with pytest.raises(ScriptError, match="WRONGTYPE"):
        await budget.ask()


async def test_a_pause_is_not_polled_like_a_full_house(valkey: redis.Redis, redis_url: str) -> None:
    """The answer names the wait that lasts longest, whatever else stands in the way."""
    async with open_budget(valkey, redis_url, requests_per_minute=600, max_in_flight=1) as budget:
        await budget.throttled(await budget.one(), 60)

        assert await budget.ask() == []
        assert (budget.last.reason, budget.last.wait_ms) == ("throttled", 60_000)
