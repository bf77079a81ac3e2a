"""A claim records the first attempt of a new request whose permit is there already, and of no other."""

import json
from typing import Any

import pytest
from support.ledger_parts import FAILED_RETRYABLE, HOUR_MS, LEASE_MS, Desk, claim_of

from worker.queue.attempts import AttemptRecord
from worker.queue.claims import Claim, Delivery, Lease, Refusal

PERMITS = "responses:permits:default"


def permit(desk: Desk, delivery: Delivery) -> None:
    desk.redis.zadd(PERMITS, {delivery.token: desk.now_ms + LEASE_MS})


async def begun(desk: Desk, delivery: Delivery, claim: Claim | None = None) -> Lease:
    lease = await desk.ledger.claim(delivery, claim or claim_of(), begins=True)
    assert isinstance(lease, Lease)
    return lease


async def test_a_new_request_with_its_permit_begins_at_once(desk: Desk) -> None:
    permit(desk, delivery := await desk.taken())
    lease = await begun(desk, delivery)

    request = desk.request()
    assert (lease.begun, lease.new, lease.attempts) == (True, True, ())
    assert (request["state"], request["calling"]) == ("running", "1")
    assert AttemptRecord.decode(request["attempt:1"].encode()) == AttemptRecord(number=1, started_at_ms=desk.now_ms)


async def test_the_same_claim_again_gets_the_same_answer(desk: Desk) -> None:
    """Its reply was lost."""
    permit(desk, delivery := await desk.taken())
    first = await begun(desk, delivery)
    before = desk.everything()

    assert await begun(desk, delivery) == first
    assert desk.everything() == before


async def test_without_a_permit_nothing_begins(desk: Desk) -> None:
    lease = await begun(desk, await desk.taken())

    assert (lease.begun, desk.request()["calling"]) == (False, "0")
    assert "attempt:1" not in desk.request()


async def test_nothing_begins_unasked(desk: Desk) -> None:
    permit(desk, delivery := await desk.taken())
    lease = await desk.ledger.claim(delivery, claim_of())

    assert isinstance(lease, Lease)
    assert (lease.begun, desk.request()["calling"]) == (False, "0")


@pytest.mark.parametrize("why", ["cancelled", "expired"])
async def test_what_must_not_be_called_does_not_begin(desk: Desk, why: str) -> None:
    if why == "cancelled":
        await desk.ledger.cancel("acme", "r", ttl_ms=HOUR_MS)
    permit(desk, delivery := await desk.taken())
    lease = await begun(desk, delivery, claim_of(deadline_ms=desk.now_ms if why == "expired" else None))

    assert (lease.begun, lease.standing.name, desk.request()["calling"]) == (False, why.upper(), "0")


async def test_a_request_that_was_held_before_does_not_begin(desk: Desk) -> None:
    """Admission was asked as for a new one; what its calls met is in the answer."""
    lease = await desk.leased()
    await desk.ledger.begin(lease, AttemptRecord(number=1, started_at_ms=desk.now_ms))
    await desk.ledger.park(lease, delay_ms=0, failures=1, throttle_ms=0)
    await desk.ledger.promote(["interactive"])
    (delivery,) = await desk.take()
    permit(desk, delivery)
    again = await begun(desk, delivery)

    assert (again.begun, again.new, again.failures, len(again.attempts)) == (False, False, 1, 1)
    assert desk.request()["calling"] == "0"


async def test_another_delivery_of_a_request_that_calls_takes_nothing_over(desk: Desk) -> None:
    permit(desk, first := await desk.taken())
    await begun(desk, first)
    permit(desk, second := await desk.taken("again"))

    assert await desk.ledger.claim(second, claim_of(), begins=True) is Refusal.BUSY
    assert (desk.request()["token"], desk.request()["calling"]) == (first.token, "1")


async def test_a_failed_request_that_runs_anew_begins_at_once(desk: Desk) -> None:
    await desk.ledger.complete(await desk.leased(), FAILED_RETRYABLE, kept_ms=HOUR_MS)
    permit(desk, delivery := await desk.taken("again"))
    lease = await begun(desk, delivery)

    assert (lease.begun, lease.attempts) == (True, ())
    assert json.loads(desk.request()["attempt:1"])["number"] == 1


async def test_a_killed_worker_leaves_the_attempt_in_the_history(desk: Desk) -> None:
    permit(desk, delivery := await desk.taken())
    await begun(desk, delivery)
    lost = await desk.reclaimed()
    (again,) = await desk.take()
    lease: Any = await desk.ledger.claim(again, claim_of())

    assert lost == [(delivery.token, 1, 1)]
    assert [AttemptRecord.decode(each).number for each in lease.attempts] == [1]


@pytest.mark.parametrize("enqueued_ms", [None, 0, -5_000, 8 * 24 * HOUR_MS, -8 * 24 * HOUR_MS])
@pytest.mark.parametrize("deadline_ms", [None, 0, 20_000, -20_000, 9 * 24 * HOUR_MS])
async def test_the_times_of_a_new_request_are_known_before_its_claim(
    desk: Desk, enqueued_ms: int | None, deadline_ms: int | None
) -> None:
    """As far as the clocks agree."""
    claim = claim_of(
        enqueued_at_ms=None if enqueued_ms is None else desk.now_ms + enqueued_ms,
        deadline_ms=None if deadline_ms is None else desk.now_ms + deadline_ms,
    )
    lease: Any = await desk.ledger.claim(await desk.taken(), claim)

    assert claim.expected(desk.now_ms) == (lease.enqueued_at_ms, lease.deadline_ms)
