"""The operators' view of the budget: its use, its limits, and the reason that nothing more is called."""

from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta

import pytest
import redis
from support.admission_parts import Budget, open_budget, shut
from support.producer import Producer, body

from worker.commands.tables import why_waiting
from worker.operations.overview import Upstream, read

MINUTE_MS = 60_000


@pytest.fixture
async def budget(valkey: redis.Redis, redis_url: str) -> AsyncGenerator[Budget]:
    """60 requests and 6,000 tokens a minute, at the start of a minute of a clock that stands still."""
    async with open_budget(valkey, redis_url, requests_per_minute=60, tokens_per_minute=6_000) as opened:
        opened.set_clock((opened.now_ms // MINUTE_MS + 1) * MINUTE_MS)
        yield opened


def upstream(valkey: redis.Redis, at_ms: int) -> Upstream:
    return read(valkey, ["interactive"], at_ms=at_ms).upstreams["default"]


async def test_the_budget_used_is_that_of_the_last_minute(budget: Budget, valkey: redis.Redis) -> None:
    await budget.rate(30, tokens=50)
    half = upstream(valkey, budget.now_ms)
    budget.advance(MINUTE_MS)
    await budget.ask()
    later = upstream(valkey, budget.now_ms)

    assert (half.requests.limit, half.requests.rate, half.tokens.limit, half.tokens.rate) == (60, 60, 6_000, 6_000)
    assert half.requests.used == pytest.approx(31, abs=1)
    assert half.tokens.used == half.requests.used * 50
    assert later.requests.used == pytest.approx(half.requests.used / 2 + 1, abs=1)
    assert upstream(valkey, budget.now_ms + 2 * MINUTE_MS).requests.used == 0


async def test_a_limit_that_nobody_named_is_shown_as_learned(valkey: redis.Redis, redis_url: str) -> None:
    async with open_budget(valkey, redis_url, burst_s=2.0) as budget:
        await budget.ask()
        shown = upstream(valkey, budget.now_ms)

    assert shown.requests.limit == 0
    assert shown.requests.rate == pytest.approx(1920)  # a cold start: 16 calls each half second
    assert shown.tokens.rate == 0


async def test_limits_set_at_run_time_are_the_ones_in_force(budget: Budget, valkey: redis.Redis) -> None:
    await budget.admission.override(rpm="30", tpm="0", in_flight="7")
    await budget.ask()

    shown = upstream(valkey, budget.now_ms)
    assert (shown.requests.limit, shown.tokens.limit, shown.in_flight_limit) == (30, 0, 7)
    assert budget.last.limits.max_in_flight == 7


async def test_a_request_that_fits_only_the_operators_limit_is_let_in(budget: Budget) -> None:
    assert not budget.admission.fits(7_000)
    await budget.admission.override(tpm="10000")
    await budget.ask()

    assert budget.admission.fits(7_000)


@pytest.mark.parametrize(
    ("tokens", "reason", "why"),
    [(1, "requests", "for the budget of requests"), (3_000, "tokens", "for the budget of tokens")],
)
async def test_what_is_short_is_named(budget: Budget, valkey: redis.Redis, tokens: int, reason: str, why: str) -> None:
    await budget.drain(tokens=tokens)

    shown = upstream(valkey, budget.now_ms)
    assert (shown.state, shown.waits_for, why_waiting(shown)) == ("open", reason, why)


async def test_a_shut_gate_and_a_pause_say_how_they_end(budget: Budget, valkey: redis.Redis) -> None:
    await budget.ask()
    budget.advance(1_000)
    await shut(budget)
    gated = why_waiting(upstream(valkey, budget.now_ms))
    await budget.admission.pause()
    paused = why_waiting(upstream(valkey, budget.now_ms))

    assert gated == "one probe must succeed: `runbook authentication_failed`"
    assert paused == "the fleet was paused 0 s ago; `resume` ends it"


def test_a_lane_is_as_old_as_the_request_that_is_next(valkey: redis.Redis, producer: Producer) -> None:
    now = datetime.now(UTC)
    for age_s, priority in ((60, None), (300, 9), (5, None)):
        producer.enqueue(
            {"body": body(), "enqueued_at": (now - timedelta(seconds=age_s)).isoformat()}, priority=priority
        )
    at_ms = round(now.timestamp() * 1000)
    assert read(valkey, ["interactive"], at_ms=at_ms).lanes["interactive"].oldest_age_ms == 300_000


def test_nobody_knows_how_old_a_request_is_whose_producer_did_not_say(valkey: redis.Redis, producer: Producer) -> None:
    producer.enqueue({"body": body()})
    valkey.rpush("responses.interactive", b"no message at all")

    assert read(valkey, ["interactive"]).lanes["interactive"].oldest_age_ms is None
