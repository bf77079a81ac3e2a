"""Leases, due times and ages by the server's clock, and what happens when that clock is wrong."""

import pytest
from support.ledger_parts import COMPLETED, FAILED_RETRYABLE, HOUR_MS, LANES, LEASE_MS, Desk, claim_of

from worker.queue.attempts import AttemptRecord
from worker.queue.claims import Lease, Refusal
from worker.queue.leases import renew
from worker.queue.ledger import KEYS_AT_ONCE

ATTEMPT = AttemptRecord(number=1)
TICK_MS = 2_000


async def reclaim_after(desk: Desk, ms: int) -> int:
    """Ticks like housekeeping does until `ms` have passed; how many deliveries went back."""
    count = len((await desk.ledger.reclaim(LANES)).lost)
    for _ in range(ms // TICK_MS):
        desk.advance(TICK_MS)
        count += len((await desk.ledger.reclaim(LANES)).lost)
    return count


async def test_a_silent_worker_loses_its_delivery_when_the_lease_ends(desk: Desk) -> None:
    await desk.leased()
    desk.enqueue("new")

    assert await reclaim_after(desk, LEASE_MS - TICK_MS) == 0
    assert await reclaim_after(desk, 2 * TICK_MS) == 1
    assert desk.lane() == ["m", "new"]
    assert desk.request()["state"] == "queued"


async def test_reclaimed_deliveries_keep_their_order(desk: Desk) -> None:
    desk.enqueue("a", "b", "c")
    for _ in range(3):
        await desk.take()
        desk.advance(10)

    assert await reclaim_after(desk, LEASE_MS + TICK_MS) == 3
    assert desk.lane() == ["a", "b", "c"]


async def test_a_renewed_lease_does_not_end(desk: Desk) -> None:
    """The permit of its call lives as long; who waits for one does not get it that way."""
    delivery, waiting = await desk.taken("a"), await desk.taken("b")
    held = [("interactive", delivery.token), ("interactive", waiting.token), ("batch", "x")]
    desk.redis.zadd("responses:permits:default", {"other": 1, delivery.token: 1})

    for _ in range(6):
        await reclaim_after(desk, 4_000)
        assert renew(desk.redis, held, upstream="default") == {"x"}

    assert desk.places() == {"inflight": 2}
    permits = dict(desk.redis.zrange("responses:permits:default", 0, -1, withscores=True))
    assert permits == {b"other": 1, delivery.token.encode(): desk.now_ms + LEASE_MS}


async def test_an_expired_lease_that_nobody_reclaimed_can_be_renewed(desk: Desk) -> None:
    delivery = await desk.taken()
    desk.advance(HOUR_MS)

    assert renew(desk.redis, [("interactive", delivery.token)], upstream="default") == set()
    assert await reclaim_after(desk, TICK_MS) == 0


async def test_a_call_that_went_on_while_redis_was_away_counts_as_in_flight_again(desk: Desk) -> None:
    """Its permit has lapsed; that of a request which only waited may not come back for nothing."""
    calling, waiting = await desk.taken("calling"), await desk.taken("waiting")
    for delivery, request_id in ((calling, "calling"), (waiting, "waiting")):
        lease = await desk.ledger.claim(delivery, claim_of(request_id))
        assert isinstance(lease, Lease)
        if delivery is calling:
            await desk.ledger.begin(lease, ATTEMPT)
    desk.advance(HOUR_MS)

    renew(desk.redis, [("interactive", delivery.token) for delivery in (calling, waiting)], upstream="default")

    permits = dict(desk.redis.zrange("responses:permits:default", 0, -1, withscores=True))
    assert permits == {calling.token.encode(): desk.now_ms + LEASE_MS}


async def test_a_permit_that_was_brought_back_ends_with_the_result(desk: Desk) -> None:
    """The report of its call may have come just before the renewal, and a second report will not come."""
    lease = await desk.leased()
    await desk.ledger.begin(lease, ATTEMPT)
    desk.advance(HOUR_MS)
    renew(desk.redis, [("interactive", lease.delivery.token)], upstream="default")
    assert desk.redis.zcard("responses:permits:default") == 1

    await desk.ledger.complete(lease, COMPLETED, kept_ms=HOUR_MS)

    assert desk.redis.zcard("responses:permits:default") == 0


async def test_any_number_of_leases_is_renewed(desk: Desk) -> None:
    """Lua passes at most 8000 arguments on; a process may hold 10,000 requests."""
    deliveries = [await desk.taken(str(number)) for number in range(3)]
    held = [("batch", str(number)) for number in range(10_000)]
    held[KEYS_AT_ONCE : KEYS_AT_ONCE + 3] = [("interactive", delivery.token) for delivery in deliveries]
    desk.advance(5_000)

    assert len(renew(desk.redis, held, upstream="default")) == 9_997
    assert {score for _, score in desk.redis.zrange("responses:leases:interactive", 0, -1, withscores=True)} == {
        desk.now_ms + LEASE_MS
    }


@pytest.mark.parametrize(
    ("step", "expected"),
    [("taken", (0, 0)), ("claimed", (0, 1)), ("calling", (1, 1)), ("released", (0, 0)), ("parked", (0, 0))],
)
async def test_only_a_death_that_took_a_claimed_request_along_counts_towards_poison(
    desk: Desk, step: str, expected: tuple[int, int]
) -> None:
    delivery = await desk.taken()
    if step != "taken":
        lease = await desk.ledger.claim(delivery, claim_of())
        assert isinstance(lease, Lease)
        if step != "claimed":
            await desk.ledger.begin(lease, ATTEMPT)
        if step == "released":
            await desk.ledger.release(lease, throttle_ms=0)
            await desk.take()
        if step == "parked":
            await desk.ledger.park(lease, delay_ms=0, failures=1, throttle_ms=0)
            await desk.ledger.promote(LANES)
            await desk.take()

    ((_, attempt, crashes),) = await desk.reclaimed()

    assert (attempt, crashes) == expected


async def test_crashes_add_up_and_the_killed_attempts_are_on_record(desk: Desk) -> None:
    desk.enqueue("m")
    for number in (1, 2, 3):
        lease = await desk.ledger.claim((await desk.take())[0], claim_of())
        assert isinstance(lease, Lease)
        assert lease.crashes == number - 1
        assert lease.attempts == tuple(AttemptRecord(number=past).stored() for past in range(1, number))
        await desk.ledger.begin(lease, AttemptRecord(number=number))
        ((token, attempt, crashes),) = await desk.reclaimed()
        assert (token, attempt, crashes) == (lease.delivery.token, number, number)


@pytest.mark.parametrize("gap_ms", [LEASE_MS // 2 + 1, 10 * LEASE_MS, 24 * HOUR_MS])
async def test_after_a_gap_nothing_is_reclaimed_for_one_lease(desk: Desk, gap_ms: int) -> None:
    """Redis was away or its clock jumped: the workers could not renew, and are given the time to."""
    delivery = await desk.taken()
    await desk.ledger.reclaim(LANES)
    desk.advance(max(gap_ms, LEASE_MS))

    assert await reclaim_after(desk, LEASE_MS - TICK_MS) == 0
    assert renew(desk.redis, [("interactive", delivery.token)], upstream="default") == set()
    assert await reclaim_after(desk, 2 * TICK_MS) == 0
    assert await reclaim_after(desk, LEASE_MS) == 1


async def test_a_short_gap_delays_nothing(desk: Desk) -> None:
    await desk.taken()
    await desk.ledger.reclaim(LANES)
    desk.advance(LEASE_MS // 2)
    await desk.ledger.reclaim(LANES)
    desk.advance(LEASE_MS // 2)

    assert len((await desk.ledger.reclaim(LANES)).lost) == 1


async def test_a_clock_that_jumped_back_does_not_strand_a_lease(desk: Desk) -> None:
    """A lease written before the jump would otherwise end a day late."""
    await desk.taken()
    await desk.ledger.reclaim(LANES)
    desk.advance(-24 * HOUR_MS)

    assert await reclaim_after(desk, LEASE_MS - TICK_MS) == 0
    assert await reclaim_after(desk, LEASE_MS) == 1


async def test_the_hold_itself_does_not_outlive_a_jump_back(desk: Desk) -> None:
    await desk.ledger.reclaim(LANES)
    desk.advance(24 * HOUR_MS)
    await desk.ledger.reclaim(LANES)
    desk.advance(-24 * HOUR_MS)
    await desk.taken()

    assert await reclaim_after(desk, 2 * LEASE_MS) == 1


async def test_a_result_is_dropped_after_its_time_and_its_marker_stays(desk: Desk) -> None:
    lease = await desk.leased()
    await desk.ledger.complete(lease, COMPLETED, kept_ms=60_000)

    desk.advance(59_999)
    assert await desk.ledger.forget() == 0
    desk.advance(1)
    assert await desk.ledger.forget() == 1
    assert "result" not in desk.request()
    assert desk.request()["state"] == "completed"
    assert desk.redis.zcard("responses:kept") == 0


@pytest.mark.parametrize(
    ("deadline_ms", "kept_ms", "expected_ms"),
    [
        (10_000, 1_000, 10_000 + HOUR_MS),
        (10_000, 2 * HOUR_MS, 2 * HOUR_MS),
        (-5 * HOUR_MS, 1_000, HOUR_MS),
        (7 * 24 * HOUR_MS, 1_000, 7 * 24 * HOUR_MS + HOUR_MS),
    ],
)
async def test_the_marker_outlives_the_deadline_by_an_hour(
    desk: Desk, deadline_ms: int, kept_ms: int, expected_ms: int
) -> None:
    """And the kept result, and the present: the answer of an expired request is remembered too."""
    lease = await desk.leased(deadline_ms=desk.now_ms + deadline_ms)
    running = desk.redis.pexpiretime("responses:request:acme:r") - desk.now_ms
    await desk.ledger.complete(lease, FAILED_RETRYABLE, kept_ms=kept_ms)
    answered = desk.redis.pexpiretime("responses:request:acme:r") - desk.now_ms

    assert running == max(deadline_ms, 0) + HOUR_MS
    assert answered == expected_ms


async def test_the_marker_outlives_what_is_parked(desk: Desk) -> None:
    """An eta may lie behind the deadline; its duplicates must be known until then."""
    lease = await desk.leased()
    await desk.ledger.park(lease, delay_ms=10 * HOUR_MS, failures=0, throttle_ms=0)

    assert desk.redis.pexpiretime("responses:request:acme:r") == desk.now_ms + 11 * HOUR_MS
    assert await desk.ledger.claim(await desk.taken(), claim_of()) is Refusal.BUSY


async def test_a_short_wait_does_not_shorten_the_marker(desk: Desk) -> None:
    lease = await desk.leased()
    await desk.ledger.park(lease, delay_ms=10, failures=0, throttle_ms=0)

    assert desk.redis.pexpiretime("responses:request:acme:r") == desk.now_ms + 2 * HOUR_MS


async def test_the_leak_check_sees_a_leak(desk: Desk) -> None:
    """A key that nothing removes would be found at the end of each of these tests."""
    await desk.leased()
    desk.redis.persist("responses:request:acme:r")

    assert desk.leaks() == ["responses:request:acme:r"]
    desk.redis.delete("responses:request:acme:r")
