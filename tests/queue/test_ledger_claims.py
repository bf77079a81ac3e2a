"""Whether a delivery may run its request: every verdict of `claim`, and what it leaves behind."""

from typing import Any

import pytest
from support.ledger_parts import COMPLETED, FAILED, FAILED_RETRYABLE, HOUR_MS, RESULTS, Desk, claim_of

from worker.queue.attempts import AttemptRecord
from worker.queue.claims import Claim, Lease, Published, Refusal, Standing, WriteOutcome

OTHER = f"{RESULTS}:other"


async def complete(desk: Desk, lease: Lease, answer: Published = COMPLETED, kept_ms: int = HOUR_MS) -> WriteOutcome:
    return await desk.ledger.complete(lease, answer, kept_ms=kept_ms)


async def claimed(desk: Desk, claim: Claim | None = None) -> Lease | Refusal:
    return await desk.ledger.claim(await desk.taken("again"), claim or claim_of())


async def test_a_new_request_is_ours(desk: Desk) -> None:
    lease = await desk.leased()

    assert lease.standing is Standing.RUNNABLE
    assert (lease.now_ms, lease.claimed_at_ms, lease.enqueued_at_ms) == (desk.now_ms,) * 3
    assert (lease.enqueued_at_source, lease.deadline_ms) == ("worker", desk.now_ms + HOUR_MS)
    assert (lease.failures, lease.own, lease.crashes, lease.throttle_ms, lease.attempts) == (0, 0, 0, 0, ())
    assert desk.request()["state"] == "running"


@pytest.mark.parametrize(
    ("enqueued_at", "deadline", "expected"),
    [
        (None, None, (0, "worker", HOUR_MS)),
        (-60_000, None, (-60_000, "caller", HOUR_MS - 60_000)),
        (-60_000, 5_000, (-60_000, "caller", 5_000)),
        (None, 5_000, (0, "worker", 5_000)),
        (None, 400 * 24 * HOUR_MS, (0, "worker", 7 * 24 * HOUR_MS)),
        (7 * 24 * HOUR_MS, None, (7 * 24 * HOUR_MS, "caller", 7 * 24 * HOUR_MS)),
        (400 * 24 * HOUR_MS, None, (0, "worker", HOUR_MS)),
        (-400 * 24 * HOUR_MS, None, (0, "worker", HOUR_MS)),
        (-(10**13), 5_000, (0, "worker", 5_000)),
    ],
)
async def test_times_come_from_the_caller_or_from_the_server(
    desk: Desk, enqueued_at: int | None, deadline: int | None, expected: tuple[int, str, int]
) -> None:
    """Relative to the server's now, in ms; no time is believed, and no deadline is, further away than seven days."""
    lease = await desk.leased(
        enqueued_at_ms=None if enqueued_at is None else desk.now_ms + enqueued_at,
        deadline_ms=None if deadline is None else desk.now_ms + deadline,
    )

    seen = (lease.enqueued_at_ms - desk.now_ms, lease.enqueued_at_source, lease.deadline_ms - desk.now_ms)
    assert seen == expected


@pytest.mark.parametrize(("deadline_in_ms", "standing"), [(1, Standing.RUNNABLE), (0, Standing.EXPIRED)])
async def test_a_request_expires_at_its_deadline(desk: Desk, deadline_in_ms: int, standing: Standing) -> None:
    lease = await desk.leased(deadline_ms=desk.now_ms + deadline_in_ms)

    assert lease.standing is standing
    assert desk.places() == {"inflight": 1}, "its answer is still to come"


@pytest.mark.parametrize(("tenant", "request_id"), [("acme", "r"), ("", "task-r")])
async def test_cancelled_by_its_id_or_by_its_celery_task_id(desk: Desk, tenant: str, request_id: str) -> None:
    assert await desk.ledger.cancel(tenant, request_id, ttl_ms=HOUR_MS) == ""

    lease = await desk.leased()

    assert lease.standing is Standing.CANCELLED
    assert desk.places() == {"inflight": 1}, "its answer is still to come"


async def test_cancelling_says_where_the_request_was(desk: Desk) -> None:
    lease = await desk.leased()

    assert await desk.ledger.cancel("acme", "r", ttl_ms=HOUR_MS) == "running"
    await complete(desk, lease)
    assert await desk.ledger.cancel("acme", "r", ttl_ms=HOUR_MS) == "completed"


async def test_an_answered_request_is_a_duplicate(desk: Desk) -> None:
    await complete(desk, await desk.leased())

    assert await claimed(desk) is Refusal.DUPLICATE
    assert desk.places() == {}
    assert len(desk.results()) == 1


async def test_the_kept_result_goes_to_another_stream_once(desk: Desk) -> None:
    await complete(desk, await desk.leased())

    verdicts = [await claimed(desk, claim_of(stream=OTHER)) for _ in range(2)]

    assert verdicts == [Refusal.REPUBLISHED, Refusal.DUPLICATE]
    assert desk.results(OTHER) == desk.results() == [("r", "completed", COMPLETED.result)]
    assert desk.places() == {}


async def test_a_kept_result_stays_on_its_stream_where_the_claim_says_so(desk: Desk) -> None:
    await complete(desk, await desk.leased())

    assert await claimed(desk, claim_of(stream=OTHER, republish=False)) is Refusal.WITHHELD
    assert desk.places() == {"inflight": 1}, "it needs an answer of its own"
    assert await claimed(desk, claim_of(republish=False)) is Refusal.DUPLICATE
    assert desk.results(OTHER) == []


async def test_a_result_no_longer_kept_cannot_go_to_another_stream(desk: Desk) -> None:
    await complete(desk, await desk.leased(), kept_ms=1000)
    desk.advance(1000)
    assert await desk.ledger.forget() == 1

    assert await claimed(desk, claim_of(stream=OTHER)) is Refusal.GONE
    assert desk.places() == {"inflight": 1}, "it needs an answer of its own"
    assert await claimed(desk) is Refusal.DUPLICATE


async def test_a_failure_that_may_be_retried_is_run_anew(desk: Desk) -> None:
    """From the start: the old attempts, deadline and failures are history."""
    first = await desk.leased()
    await desk.ledger.begin(first, AttemptRecord(number=1))
    await complete(desk, first, FAILED_RETRYABLE)
    desk.advance(60_000)

    again = await claimed(desk)

    assert isinstance(again, Lease)
    assert (again.failures, again.attempts) == (0, ())
    assert again.claimed_at_ms == desk.now_ms
    assert again.deadline_ms == desk.now_ms + HOUR_MS
    assert await complete(desk, again) is WriteOutcome.OK
    assert [outcome for _, outcome, _ in desk.results()] == ["failed", "completed"]


async def test_the_result_of_a_new_run_is_kept_as_long_as_any(desk: Desk) -> None:
    """The deltas that were to be dropped with the first run must not be dropped with the second."""
    await complete(desk, await desk.leased(), FAILED_RETRYABLE)
    desk.advance(HOUR_MS - 1)
    again = await claimed(desk)
    assert isinstance(again, Lease)
    await complete(desk, again)
    desk.advance(1)

    assert await desk.ledger.forget() == 0
    assert desk.request()["result"] == COMPLETED.result.decode()


async def test_a_failure_that_stays_is_a_duplicate(desk: Desk) -> None:
    await complete(desk, await desk.leased(), FAILED)

    assert await claimed(desk) is Refusal.DUPLICATE


@pytest.mark.parametrize("state", ["running", "parked", "completed", "failed, retryable"])
async def test_another_body_under_a_known_id_is_a_conflict(desk: Desk, state: str) -> None:
    """The newcomer gets its own answer; the first is not touched."""
    lease = await desk.leased()
    if state == "parked":
        await desk.ledger.park(lease, delay_ms=1000, failures=1, throttle_ms=0)
    if state in ("completed", "failed, retryable"):
        await complete(desk, lease, COMPLETED if state == "completed" else FAILED_RETRYABLE)
    before, newcomer = desk.request(), await desk.taken("again")

    assert await desk.ledger.claim(newcomer, claim_of(fingerprint="other")) is Refusal.CONFLICT
    assert desk.request() == before

    published = len(desk.results())
    assert await desk.ledger.answer(newcomer, claim_of(), FAILED) is WriteOutcome.OK
    assert desk.results()[published:] == [("r", "failed", FAILED.result)]
    assert desk.request() == before


@pytest.mark.parametrize("state", ["running", "parked", "running, its lease expired"])
async def test_while_a_delivery_exists_others_of_its_id_are_dropped(desk: Desk, state: str) -> None:
    lease = await desk.leased()
    if state == "parked":
        await desk.ledger.park(lease, delay_ms=60_000, failures=0, throttle_ms=0)
    if state.endswith("expired"):
        desk.advance(10 * 60_000)
    before = desk.places()

    assert await claimed(desk) is Refusal.BUSY
    assert desk.places() == before


async def test_a_request_that_waits_in_its_lane_goes_to_whoever_comes_first(desk: Desk) -> None:
    """Were the newcomer dropped instead, a purged lane would leave the request to nobody."""
    first = await desk.leased()
    await desk.ledger.release(first, throttle_ms=5)
    desk.redis.delete("responses.interactive")

    second = await claimed(desk)

    assert isinstance(second, Lease)
    assert second.throttle_ms == 5
    assert await complete(desk, second) is WriteOutcome.OK


async def test_a_lost_delivery_may_not_run(desk: Desk) -> None:
    delivery = await desk.taken()
    await desk.reclaimed()

    assert await desk.ledger.claim(delivery, claim_of()) is Refusal.SUPERSEDED
    assert desk.request() == {}


@pytest.mark.parametrize(
    ("one", "other"), [(("a:b", "c"), ("a", "b:c")), (("a", "r"), ("b", "r")), (("a", "r"), ("a", "R"))]
)
async def test_requests_of_different_tenants_never_meet(desk: Desk, one: Any, other: Any) -> None:
    """Neither do their cancellations, although both names may hold colons."""
    await desk.ledger.cancel(*one, ttl_ms=HOUR_MS)
    leases = [await claimed(desk, claim_of(request_id, tenant=tenant)) for tenant, request_id in (one, other)]

    standings = [lease.standing for lease in leases if isinstance(lease, Lease)]
    assert standings == [Standing.CANCELLED, Standing.RUNNABLE]


async def test_the_history_of_a_request_comes_with_its_claim(desk: Desk) -> None:
    """Oldest first, the last fifty; failures, refusals of its own, throttling and crashes are counted on."""
    lease = await desk.leased()
    for number in range(1, 61):
        attempt = AttemptRecord(number=number)
        previous = AttemptRecord(number=number - 1, outcome="failed") if number > 1 else None
        assert await desk.ledger.begin(lease, attempt, previous) is WriteOutcome.OK
    await desk.ledger.park(
        lease, delay_ms=0, failures=3, own=2, throttle_ms=77, attempt=AttemptRecord(number=60, outcome="failed")
    )
    await desk.ledger.promote(["interactive"])

    again = await desk.ledger.claim((await desk.take())[0], claim_of())

    assert isinstance(again, Lease)
    assert (again.failures, again.own, again.throttle_ms, again.crashes) == (3, 2, 77, 0)
    assert again.attempts == tuple(AttemptRecord(number=number, outcome="failed").stored() for number in range(11, 61))


async def test_a_request_that_was_forgotten_while_it_ran_still_gets_its_answer(desk: Desk) -> None:
    """Redis may have expired or evicted its hash; the delivery is still ours, and the answer is paid for."""
    lease = await desk.leased()
    desk.redis.delete("responses:request:acme:r")

    assert await complete(desk, lease) is WriteOutcome.OK
    assert desk.results() == [("r", "completed", COMPLETED.result)]
    assert desk.places() == {}
    assert await claimed(desk) is Refusal.DUPLICATE
