"""The fleet's budget: what one atomic decision promises, whoever asks, whatever the clock does."""

import random

import pytest
import redis
from support.admission_parts import HOUR_MS, LEASE_MS, PERMITS, QUOTA, Budget, answered, open_budget, probe_after, shut

from worker.admission.grants import Limits
from worker.storage.scripts import ScriptError

BURST = 20
"""Two seconds of 600 a minute."""


async def test_a_full_bucket_is_one_burst_and_then_the_rate(budget: Budget) -> None:
    await budget.ended(*await budget.drain())
    budget.advance(HOUR_MS)

    assert len(await budget.drain()) == BURST
    assert budget.last.reason == "requests"
    assert 1 <= budget.last.wait_ms <= 100
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


async def test_without_any_limit_known_a_few_calls_start_at_once(valkey: redis.Redis, redis_url: str) -> None:
    """And as many more as were answered, and once more as many."""
    async with open_budget(valkey, redis_url, burst_s=2.0) as budget:
        first = await budget.drain()
        budget.advance(100)
        await budget.ended(*first)
        second = await budget.drain()

        assert len(first) == 16
        assert len(second) == 32


async def test_the_budget_is_one_for_all_processes(budget: Budget) -> None:
    processes = [budget.process() for _ in range(8)]

    granted = [await budget.ask(by=random.choice(processes)) for _ in range(50)]

    assert sum(map(len, granted)) == 5


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


async def test_a_call_that_was_never_made_costs_nothing(budget: Budget) -> None:
    for _ in range(50):
        await budget.unsent(await budget.one())

    assert len(await budget.drain()) == 5


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


async def test_probes_that_never_called_give_nothing_back(budget: Budget) -> None:
    """They were granted without a charge: an unreachable gateway is no way to fill the budget."""
    await shut(budget)
    before = budget.number("requests_ms"), budget.number("passed_ms")
    for _ in range(5):
        _, probe = await probe_after(budget)
        await budget.unsent(probe)

    assert budget.number("passed_ms") == before[1]
    assert budget.number("requests_ms") <= 2_000
