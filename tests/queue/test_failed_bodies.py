"""The message of a retryable failure is kept for a while, within bounds, and comes back once."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from support.ledger_parts import COMPLETED, FAILED, FAILED_RETRYABLE, HOUR_MS, Desk, claim_of

from worker.operations.redrive import FailedRequest, FailedRequests, Failures
from worker.queue.claims import Lease, Published, WriteOutcome
from worker.queue.failed_bodies import Redrive

TIMED_OUT = replace(FAILED_RETRYABLE, failed_code="upstream_timeout")
MESSAGES = "responses:failed:messages"
LOWEST = "\x06\x169"
MOST_BYTES = 128 * 1024 * 1024


@pytest.fixture
def keeping(desk: Desk) -> Desk:
    desk.ledger = replace(desk.ledger, failed_kept_ms=HOUR_MS)
    return desk


async def fail(desk: Desk, request_id: str = "r", answer: Published = TIMED_OUT, dead_letter_reason: str = "") -> Lease:
    lease = await desk.leased(request_id)
    written = await desk.ledger.complete(lease, answer, kept_ms=HOUR_MS, dead_letter_reason=dead_letter_reason)
    assert written is WriteOutcome.OK
    return lease


def kept(desk: Desk, **failures: Any) -> list[FailedRequest]:
    return list(FailedRequests(desk.redis).find(Failures(**failures)))


def redrive(desk: Desk, failed: FailedRequest) -> Redrive:
    return FailedRequests(desk.redis).redrive(failed, within=timedelta(hours=2))


async def test_a_retryable_failure_keeps_its_message(keeping: Desk) -> None:
    """Its facts apart from it: they are read without prompts."""
    await fail(keeping, "a")
    await fail(keeping, "b", replace(TIMED_OUT, failed_code="upstream_error"))

    (failed,) = kept(keeping, code="upstream_timeout", tenant="acme", lane="interactive")
    assert failed[1:] == ("interactive", "upstream_timeout", "acme", "a", 1)
    assert keeping.redis.hget(MESSAGES, failed.entry_id) == b"m"
    assert keeping.redis.hget(MESSAGES, "bytes") == b"2"
    assert keeping.places() == {}
    assert kept(keeping, tenant="another") == []


async def test_nothing_else_is_kept(keeping: Desk) -> None:
    """Not what was answered, nor what failed for good, nor a dead letter, which has its message."""
    await fail(keeping, "a", COMPLETED)
    await fail(keeping, "b", FAILED)
    await fail(keeping, "c", dead_letter_reason="poison")
    keeping.ledger = replace(keeping.ledger, failed_kept_ms=0)
    await fail(keeping, "d")

    assert keeping.redis.exists("responses:failed", MESSAGES) == 0


async def test_an_answer_whose_reply_was_lost_keeps_one_message(keeping: Desk) -> None:
    await fail(keeping)
    await keeping.runner.repeat("complete")

    assert len(kept(keeping)) == 1


async def test_a_redriven_request_runs_once_behind_all_others(keeping: Desk) -> None:
    """At the back of the lowest priority, with no attempts behind it and a deadline of its own."""
    await fail(keeping)
    (failed,) = kept(keeping)
    keeping.enqueue("waits", priority=LOWEST)

    assert [redrive(keeping, failed) for _ in range(2)] == [Redrive.REDRIVEN, Redrive.GONE]

    assert keeping.lane(priority=LOWEST) == ["waits", "m"]
    assert (kept(keeping), keeping.redis.hget(MESSAGES, "bytes")) == ([], b"0")
    _, delivery = await keeping.take(interactive=2)
    lease = await keeping.ledger.claim(delivery, claim_of())
    assert isinstance(lease, Lease)
    assert (lease.failures, lease.attempts) == (0, ())
    assert abs(lease.deadline_ms - lease.now_ms - 2 * HOUR_MS) < 60_000  # one of the two clocks stands still


async def test_a_caller_that_enqueues_again_leaves_nothing_to_redrive(keeping: Desk) -> None:
    """Under way already; and when that fails as well, there is one message of this id."""
    await fail(keeping)
    (first,) = kept(keeping)

    lease = await keeping.leased()
    assert (kept(keeping), redrive(keeping, first)) == ([], Redrive.GONE)
    await keeping.ledger.complete(lease, TIMED_OUT, kept_ms=HOUR_MS)

    (second,) = kept(keeping)
    assert second.entry_id != first.entry_id


@pytest.mark.parametrize("state", ["queued", "running", "parked", "completed", "incomplete"])
async def test_an_id_that_went_on_is_left_alone(keeping: Desk, state: str) -> None:
    await fail(keeping)
    (failed,) = kept(keeping)
    keeping.redis.hset("responses:request:acme:r", "state", state)

    assert redrive(keeping, failed) is Redrive.CHANGED
    assert keeping.places() == {}


async def test_a_request_is_remembered_for_longer_than_its_message(keeping: Desk) -> None:
    """Else an answer since then would not be known."""
    keeping.ledger = replace(keeping.ledger, failed_kept_ms=24 * HOUR_MS)
    await fail(keeping)

    assert keeping.redis.pexpiretime("responses:request:acme:r") > keeping.now_ms + 24 * HOUR_MS


async def test_messages_go_when_their_time_is_over(keeping: Desk) -> None:
    for request_id in ("a", "b", "c"):
        await fail(keeping, request_id)
    assert await keeping.ledger.expire_failed() == 0

    keeping.advance(HOUR_MS + 60_000)

    assert [await keeping.ledger.expire_failed(2) for _ in range(3)] == [2, 1, 0]
    assert (kept(keeping), keeping.redis.hget(MESSAGES, "bytes")) == ([], b"0")


async def test_the_oldest_message_makes_room(keeping: Desk) -> None:
    """By bytes; the newest failures are those that somebody will redrive."""
    await fail(keeping, "a")
    keeping.redis.hincrby(MESSAGES, "bytes", MOST_BYTES - 1)
    await fail(keeping, "b")

    assert [failed.request_id for failed in kept(keeping)] == ["b"]
    assert keeping.redis.hget(MESSAGES, "bytes") == b"%d" % MOST_BYTES


@pytest.mark.parametrize("key", ["responses:failed", MESSAGES])
async def test_a_key_of_another_type_stops_no_answer(keeping: Desk, key: str) -> None:
    keeping.redis.set(key, "not ours", ex=60)

    await fail(keeping)

    assert keeping.places() == {}
    assert [outcome for _, outcome, _ in keeping.results()] == ["failed"]
