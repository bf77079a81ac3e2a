"""Fencing: what may be written by whom, and where a message is afterwards."""

from dataclasses import replace

import pytest
from support.ledger_parts import COMPLETED, FAILED, HOUR_MS, RESULTS, Desk, claim_of

from worker.queue.attempts import AttemptRecord
from worker.queue.claims import Lease, Published, Refusal, WriteOutcome
from worker.queue.deltas import ENDED_KEPT_MS
from worker.storage.scripts import ScriptError

INCOMPLETE = Published("incomplete", retryable=False, streamed=False, result=b"half")
ATTEMPT = AttemptRecord(number=1)
PERMITS = "responses:permits:default"


async def overtaken(desk: Desk) -> tuple[Lease, Lease]:
    """The same message under a lost lease and under a good one."""
    stale = await desk.leased()
    await desk.reclaimed()
    (delivery,) = await desk.take()
    fresh = await desk.ledger.claim(delivery, claim_of())
    assert isinstance(fresh, Lease)
    return stale, fresh


async def test_an_answer_ends_all_but_the_permit(desk: Desk) -> None:
    lease = await desk.leased()
    desk.redis.zadd(PERMITS, {lease.delivery.token: desk.now_ms + 15_000})
    await desk.ledger.begin(lease, ATTEMPT)

    assert await desk.ledger.complete(lease, COMPLETED, kept_ms=HOUR_MS) is WriteOutcome.OK
    assert desk.places() == {}
    assert desk.redis.zcard(PERMITS) == 1, "its report ends it, and says what the call used"
    assert desk.results() == [("r", "completed", COMPLETED.result)]
    kept = desk.request()
    assert (kept["state"], kept["result"], kept["calling"]) == ("completed", COMPLETED.result.decode(), "0")
    assert not [name for name in kept if name.startswith("attempt:")], "they are in the result"


async def test_a_failure_ends_its_permit(desk: Desk) -> None:
    """A call that broke off has no report."""
    lease = await desk.leased()
    desk.redis.zadd(PERMITS, {lease.delivery.token: desk.now_ms + 15_000})

    assert await desk.ledger.complete(lease, FAILED, kept_ms=HOUR_MS) is WriteOutcome.OK
    assert desk.redis.zcard(PERMITS) == 0


async def test_a_dead_letter_beside_the_answer(desk: Desk) -> None:
    """Poison: the caller gets its failed result, and whoever looks into it the message."""
    lease = await desk.leased()

    await desk.ledger.complete(lease, FAILED, kept_ms=HOUR_MS, dead_letter_reason="poison")

    assert desk.dead() == [("poison", "m")]
    assert [outcome for _, outcome, _ in desk.results()] == ["failed"]


async def test_a_stale_failure_changes_nothing(desk: Desk) -> None:
    stale, _ = await overtaken(desk)
    before = desk.everything()

    assert await desk.ledger.complete(stale, FAILED, kept_ms=HOUR_MS) is WriteOutcome.SUPERSEDED
    assert (
        await desk.ledger.complete(stale, FAILED, kept_ms=HOUR_MS, dead_letter_reason="poison")
        is WriteOutcome.SUPERSEDED
    )
    assert (
        await desk.ledger.park(stale, delay_ms=0, failures=9, throttle_ms=9, attempt=ATTEMPT) is WriteOutcome.SUPERSEDED
    )
    assert await desk.ledger.release(stale, throttle_ms=9, attempt=ATTEMPT) is WriteOutcome.SUPERSEDED
    assert await desk.ledger.begin(stale, ATTEMPT) is WriteOutcome.SUPERSEDED
    assert desk.everything() == before


@pytest.mark.parametrize("answer", [COMPLETED, INCOMPLETE])
async def test_a_stale_answer_is_paid_for_and_counts_once(desk: Desk, answer: Published) -> None:
    """The other delivery finds out at its next step, returns to its lane and is a duplicate there."""
    stale, fresh = await overtaken(desk)

    assert await desk.ledger.complete(stale, answer, kept_ms=HOUR_MS) is WriteOutcome.OK
    assert await desk.ledger.complete(fresh, COMPLETED, kept_ms=HOUR_MS) is WriteOutcome.DUPLICATE
    (again,) = await desk.take()

    assert await desk.ledger.claim(again, claim_of()) is Refusal.DUPLICATE
    assert desk.results() == [("r", answer.outcome, answer.result)]
    assert desk.places() == {}


@pytest.mark.parametrize("step", ["begin", "park", "fail"])
async def test_a_delivery_that_was_answered_meanwhile_goes_no_further(desk: Desk, step: str) -> None:
    """No second call is made, no retry scheduled; and nothing waits for a lease to end."""
    stale, fresh = await overtaken(desk)
    await desk.ledger.complete(stale, COMPLETED, kept_ms=HOUR_MS)
    kept = desk.request()

    if step == "begin":
        assert await desk.ledger.begin(fresh, ATTEMPT) is WriteOutcome.SUPERSEDED
    if step == "park":
        assert await desk.ledger.park(fresh, delay_ms=0, failures=1, throttle_ms=0) is WriteOutcome.SUPERSEDED
    if step == "fail":
        assert await desk.ledger.complete(fresh, FAILED, kept_ms=HOUR_MS) is WriteOutcome.DUPLICATE

    assert desk.places() == {"queued": 1}
    assert desk.request() == kept


async def test_an_answer_reaches_the_stream_of_the_delivery_it_overtook(desk: Desk) -> None:
    """Two messages with one id and different `reply_to`: the second took the first one's place in its lane."""
    other = f"{RESULTS}:other"
    stale = await desk.leased()
    await desk.reclaimed()
    desk.redis.delete("responses.interactive")
    fresh = await desk.leased(stream=other)
    await desk.ledger.complete(stale, COMPLETED, kept_ms=HOUR_MS)

    await desk.ledger.complete(fresh, INCOMPLETE, kept_ms=HOUR_MS)
    (again,) = await desk.take()

    assert await desk.ledger.claim(again, claim_of(stream=other)) is Refusal.DUPLICATE
    assert desk.results() == desk.results(other) == [("r", "completed", COMPLETED.result)]


async def test_an_answered_request_stays_answered_whatever_returns_to_its_lane(desk: Desk) -> None:
    """Found by the machine: even the very delivery that was answered, parked before, must not open it again."""
    lease = await desk.leased()
    await desk.ledger.park(lease, delay_ms=0, failures=1, throttle_ms=0)
    await desk.ledger.complete(lease, COMPLETED, kept_ms=HOUR_MS)

    await desk.ledger.promote(["interactive"])

    assert desk.request()["state"] == "completed"
    assert await desk.ledger.claim((await desk.take())[0], claim_of()) is Refusal.DUPLICATE
    assert len(desk.results()) == 1


async def test_a_stale_answer_to_a_forgotten_request_is_not_published(desk: Desk) -> None:
    """Nobody knows any more whether it was answered."""
    stale, fresh = await overtaken(desk)
    await desk.ledger.complete(fresh, COMPLETED, kept_ms=HOUR_MS)
    desk.redis.delete("responses:request:acme:r")

    assert await desk.ledger.complete(stale, COMPLETED, kept_ms=HOUR_MS) is WriteOutcome.SUPERSEDED
    assert len(desk.results()) == 1


async def test_parked_until_it_is_due(desk: Desk) -> None:
    lease = await desk.leased()
    desk.redis.zadd(PERMITS, {lease.delivery.token: desk.now_ms + 15_000})

    assert await desk.ledger.park(lease, delay_ms=500, failures=2, throttle_ms=30, attempt=ATTEMPT) is WriteOutcome.OK
    assert desk.places() == {"parked": 1}
    assert desk.redis.zcard(PERMITS) == 0
    desk.advance(499)
    assert await desk.ledger.promote(["interactive"]) == 0
    desk.advance(1)
    assert await desk.ledger.promote(["interactive"]) == 1
    assert desk.places() == {"queued": 1}
    assert desk.request()["state"] == "queued"


async def test_what_came_due_first_runs_first_and_before_what_is_new(desk: Desk) -> None:
    for request_id, delay_ms in (("b", 20), ("c", 30), ("a", 10), ("later", 99)):
        delivery = await desk.taken(request_id)
        lease = await desk.ledger.claim(delivery, claim_of(request_id))
        assert isinstance(lease, Lease)
        await desk.ledger.park(lease, delay_ms=delay_ms, failures=0, throttle_ms=0)
    desk.enqueue("new")
    desk.advance(30)

    assert await desk.ledger.promote(["interactive", "batch"]) == 3
    assert desk.lane() == ["a", "b", "c", "new"]


async def test_a_message_returns_to_the_list_it_came_from(desk: Desk) -> None:
    """Its priority is still what the producer said."""
    desk.enqueue("low", lane="batch", priority="\x06\x169")
    (delivery,) = await desk.take(batch=1)
    lease = await desk.ledger.claim(delivery, claim_of())
    assert isinstance(lease, Lease)

    await desk.ledger.park(lease, delay_ms=0, failures=0, throttle_ms=0)
    await desk.ledger.promote(["batch"])

    assert desk.lane("batch", priority="\x06\x169") == ["low"]


async def test_a_parked_request_is_woken_by_its_cancellation(desk: Desk) -> None:
    lease = await desk.leased()
    await desk.ledger.park(lease, delay_ms=HOUR_MS, failures=0, throttle_ms=0)

    assert await desk.ledger.cancel("acme", "r", ttl_ms=HOUR_MS) == "parked"
    assert await desk.ledger.promote(["interactive"]) == 1


async def test_a_released_request_is_next_and_spent_nothing(desk: Desk) -> None:
    lease = await desk.leased()
    desk.redis.zadd(PERMITS, {lease.delivery.token: desk.now_ms + 15_000})
    await desk.ledger.begin(lease, ATTEMPT)
    desk.enqueue("new")

    interrupted = AttemptRecord(number=1, outcome="interrupted")
    assert await desk.ledger.release(lease, throttle_ms=40, attempt=interrupted) is WriteOutcome.OK
    assert desk.lane() == ["m", "new"]
    assert desk.redis.zcard(PERMITS) == 0
    again = await desk.ledger.claim((await desk.take())[0], claim_of())

    assert isinstance(again, Lease)
    assert (again.failures, again.crashes, again.throttle_ms, again.attempts) == (0, 0, 40, (interrupted.stored(),))


async def test_a_request_released_behind_is_the_last_of_its_list(desk: Desk) -> None:
    """Not of its lane: what has a lower priority still comes after it."""
    desk.enqueue("low", priority="\x06\x169")
    lease = await desk.leased()
    desk.enqueue("new", "newer")

    assert await desk.ledger.release(lease, behind=True, throttle_ms=0) is WriteOutcome.OK
    assert desk.lane() == ["new", "newer", "m"]
    assert [delivery.message for delivery in await desk.take(interactive=4)] == [b"new", b"newer", b"m", b"low"]


async def test_an_attempt_is_on_record_before_its_call(desk: Desk) -> None:
    lease = await desk.leased()

    assert await desk.ledger.begin(lease, ATTEMPT) is WriteOutcome.OK
    second, ended = AttemptRecord(number=2), AttemptRecord(number=1, outcome="failed")
    assert await desk.ledger.begin(lease, second, ended) is WriteOutcome.OK

    known = desk.request()
    assert (known["attempt:1"], known["attempt:2"]) == (ended.stored().decode(), second.stored().decode())
    assert known["calling"] == "2"


async def test_no_call_begins_for_a_request_that_somebody_else_holds(desk: Desk) -> None:
    """A delivery in flight is not enough: an unclaimed one, or one whose id another holds, may not call."""
    lease = await desk.leased()
    desk.redis.hset("responses:request:acme:r", "token", "somebody")

    assert await desk.ledger.begin(lease, ATTEMPT) is WriteOutcome.SUPERSEDED
    assert "attempt:1" not in desk.request()


async def test_whoever_watches_the_deltas_is_told_that_it_is_over(desk: Desk) -> None:
    """Once, behind all deltas; and something else in that place costs nobody the answer."""
    deltas = "responses:deltas:acme:r"
    desk.redis.xadd(deltas, {"type": "delta"}, id="1-1")
    streamed = replace(COMPLETED, streamed=True)

    lease = await desk.leased()
    for _ in range(2):
        assert await desk.ledger.complete(lease, streamed, kept_ms=HOUR_MS) is WriteOutcome.OK
    assert [entry[b"type"] for _, entry in desk.redis.xrange(deltas)] == [b"delta", b"finished"]
    assert 0 < desk.redis.pttl(deltas) <= ENDED_KEPT_MS

    desk.redis.set("responses:deltas:acme:other", "mine", px=HOUR_MS)
    lease = await desk.leased("other")
    with pytest.raises(ScriptError, match="WRONGTYPE"):
        await desk.ledger.complete(lease, streamed, kept_ms=HOUR_MS)
    assert await desk.ledger.complete(lease, streamed, kept_ms=HOUR_MS) is WriteOutcome.OK
    assert [entry[0] for entry in desk.results()] == ["r", "other"]


async def test_any_number_of_requests_can_be_asked_whether_they_are_cancelled(desk: Desk) -> None:
    keys = [f"responses:cancel:acme:{number}" for number in range(10_000)]
    for number in (0, 1_000, 9_999):
        await desk.ledger.cancel("acme", str(number), ttl_ms=HOUR_MS)

    cancelled = await desk.ledger.cancelled(keys)

    assert [number for number, found in enumerate(cancelled) if found] == [0, 1_000, 9_999]
