"""One result for every stream that asked: duplicates of a request that is still under way."""

from typing import Any

import pytest
from support.ledger_parts import COMPLETED, FAILED, HOUR_MS, LANES, RESULTS, Desk, claim_of

from worker.queue.claims import Lease, Published, Refusal, Standing, WriteOutcome

MOST = 16


def stream(number: int) -> str:
    return f"{RESULTS}:s{number}"


async def ask(desk: Desk, number: int) -> Lease | Refusal:
    """One more delivery of the request, for a stream of its own."""
    return await desk.ledger.claim(await desk.taken(f"m{number}"), claim_of(stream=stream(number)))


@pytest.mark.parametrize("answer", [COMPLETED, FAILED])
@pytest.mark.parametrize("parked", [False, True])
async def test_a_duplicate_for_another_stream_is_answered_when_the_first_is(
    desk: Desk,
    answer: Published,
    parked: bool,  # noqa: FBT001  # drawn, not passed
) -> None:
    first = await desk.leased()
    if parked:
        await desk.ledger.park(first, delay_ms=1_000, failures=0, throttle_ms=0)
    assert await ask(desk, 1) is Refusal.BUSY
    assert await ask(desk, 1) is Refusal.BUSY
    assert await ask(desk, 2) is Refusal.BUSY
    if parked:
        desk.advance(1_000)
        await desk.ledger.promote(LANES)
        found = await desk.ledger.claim((await desk.take())[0], claim_of())
        assert isinstance(found, Lease)
        first = found

    assert await desk.ledger.complete(first, answer, kept_ms=HOUR_MS) is WriteOutcome.OK
    assert await desk.runner.repeat("complete") is WriteOutcome.OK

    for name in (RESULTS, stream(1), stream(2)):
        assert desk.results(name) == [("r", answer.outcome, answer.result)]
        assert desk.redis.sismember("responses:streams", name)
    assert await ask(desk, 2) is Refusal.DUPLICATE
    assert desk.places() == {}


async def test_more_streams_than_may_wait_are_refused_each_with_an_answer_of_its_own(desk: Desk) -> None:
    first = await desk.leased(stream=stream(0))
    said = [await ask(desk, number) for number in range(1, MOST + 2)]

    assert said == [Refusal.BUSY] * (MOST - 1) + [Refusal.CROWDED] * 2
    assert desk.places() == {"inflight": 3}
    await desk.ledger.complete(first, COMPLETED, kept_ms=HOUR_MS)
    assert [len(desk.results(stream(number))) for number in range(MOST + 1)] == [1] * MOST + [0]
    for delivery in desk.redis.hkeys("responses:inflight:interactive"):
        desk.redis.hdel("responses:inflight:interactive", delivery)
        desk.redis.zrem("responses:leases:interactive", delivery)


async def test_a_stream_that_is_something_else_by_then_does_not_cost_the_others_their_answer(desk: Desk) -> None:
    first = await desk.leased()
    await ask(desk, 1)
    await ask(desk, 2)
    desk.redis.set(stream(1), "mine")

    assert await desk.ledger.complete(first, COMPLETED, kept_ms=HOUR_MS) is WriteOutcome.OK

    assert len(desk.results()) == len(desk.results(stream(2))) == 1
    assert desk.redis.get(stream(1)) == b"mine"
    desk.redis.delete(stream(1))


@pytest.mark.parametrize("changes", [{}, {"task_id": "sha256-0a"}, {"tenant": "other"}])
async def test_a_parked_request_is_revoked_by_its_task_whatever_its_own_id(desk: Desk, changes: dict[str, Any]) -> None:
    lease = await desk.leased("own-id", **changes)
    await desk.ledger.park(lease, delay_ms=6 * 24 * HOUR_MS, failures=0, throttle_ms=0)

    assert await desk.ledger.revoke(lease.claim.task_id, ttl_ms=HOUR_MS) == "parked"

    assert await desk.ledger.promote(LANES) == 1
    again = await desk.ledger.claim((await desk.take())[0], lease.claim)
    assert isinstance(again, Lease)
    assert again.standing is Standing.CANCELLED
    await desk.ledger.complete(again, FAILED, kept_ms=HOUR_MS)


async def test_a_task_that_nobody_parked_is_marked_all_the_same(desk: Desk) -> None:
    assert await desk.ledger.revoke("later", ttl_ms=HOUR_MS) == ""
    lease = await desk.leased("own-id", task_id="later")

    assert lease.standing is Standing.CANCELLED
    await desk.ledger.complete(lease, FAILED, kept_ms=HOUR_MS)
