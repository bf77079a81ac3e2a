"""A lost reply: every command asked twice with the same arguments answers the same, and does nothing twice."""

from collections.abc import Awaitable, Callable

import pytest
from support.ledger_parts import COMPLETED, FAILED, FAILED_RETRYABLE, HOUR_MS, LANES, RESULTS, Desk, claim_of

from worker.queue.attempts import AttemptRecord
from worker.queue.claims import Lease, Reclaim, Refusal
from worker.queue.leases import renew

Scene = Callable[[Desk], Awaitable[object]]
ATTEMPT = AttemptRecord(number=1)


async def pop(desk: Desk) -> None:
    desk.enqueue(*"abc")
    desk.enqueue("1", lane="batch")
    await desk.take(interactive=1, batch=2)


async def begin(desk: Desk) -> None:
    await desk.ledger.begin(await desk.leased(), ATTEMPT, AttemptRecord(number=0, outcome="failed"))


async def complete(desk: Desk) -> None:
    await desk.ledger.complete(await desk.leased(), COMPLETED, kept_ms=HOUR_MS)


async def complete_as_poison(desk: Desk) -> None:
    await desk.ledger.complete(await desk.leased(), FAILED_RETRYABLE, kept_ms=HOUR_MS, dead_letter_reason="poison")


async def complete_stale(desk: Desk) -> None:
    stale = await desk.leased()
    await desk.reclaimed()
    await desk.ledger.claim((await desk.take())[0], claim_of())
    await desk.ledger.complete(stale, COMPLETED, kept_ms=HOUR_MS)


async def complete_answered(desk: Desk) -> None:
    stale = await desk.leased()
    await desk.reclaimed()
    fresh = await desk.ledger.claim((await desk.take())[0], claim_of())
    assert isinstance(fresh, Lease)
    await desk.ledger.complete(stale, COMPLETED, kept_ms=HOUR_MS)
    await desk.ledger.complete(fresh, COMPLETED, kept_ms=HOUR_MS)


async def park(desk: Desk) -> None:
    await desk.ledger.park(await desk.leased(), delay_ms=0, failures=1, throttle_ms=2, attempt=ATTEMPT)


async def renewal(desk: Desk) -> None:
    delivery = await desk.taken()
    held = [("interactive", delivery.token), ("batch", "gone")]
    assert renew(desk.redis, held, upstream="default") == {"gone"}


async def claim(desk: Desk) -> None:
    await desk.leased()


async def claim_conflict(desk: Desk) -> None:
    await desk.leased()
    assert await desk.ledger.claim(await desk.taken(), claim_of(fingerprint="x")) is Refusal.CONFLICT


async def claim_gone(desk: Desk) -> None:
    await desk.ledger.complete(await desk.leased(), COMPLETED, kept_ms=0)
    await desk.ledger.forget()
    assert await desk.ledger.claim(await desk.taken(), claim_of(stream=f"{RESULTS}:x")) is Refusal.GONE


async def claim_anew(desk: Desk) -> None:
    await desk.ledger.complete(await desk.leased(), FAILED_RETRYABLE, kept_ms=HOUR_MS)
    assert isinstance(await desk.ledger.claim(await desk.taken(), claim_of()), Lease)


async def cancel(desk: Desk) -> None:
    lease = await desk.leased()
    await desk.ledger.park(lease, delay_ms=HOUR_MS, failures=0, throttle_ms=0)
    await desk.ledger.cancel("acme", "r", ttl_ms=HOUR_MS)


SAME: dict[str, tuple[str, Scene]] = {
    scene.__name__: (command, scene)
    for command, scene in (
        ("pop", pop),
        ("claim", claim),
        ("claim", claim_conflict),
        ("claim", claim_gone),
        ("claim", claim_anew),
        ("begin", begin),
        ("complete", complete),
        ("complete", complete_as_poison),
        ("complete", complete_stale),
        ("park", park),
    )
}


@pytest.mark.parametrize("name", SAME)
async def test_asked_again_it_says_the_same_and_changes_nothing(desk: Desk, name: str) -> None:
    command, scene = SAME[name]
    await scene(desk)
    before = desk.everything()

    first = await desk.runner.repeat(command)
    second = await desk.runner.repeat(command)

    assert first == second
    assert getattr(first, "status", first) not in ("SUPERSEDED", "DUPLICATE")
    assert desk.everything() == before


async def answer(desk: Desk) -> None:
    await desk.ledger.answer(await desk.taken(), claim_of(), FAILED)


async def bury(desk: Desk) -> None:
    await desk.ledger.bury(await desk.taken(), "junk")


async def release(desk: Desk) -> None:
    await desk.ledger.release(await desk.leased(), behind=True, throttle_ms=1, attempt=ATTEMPT)


async def give_back(desk: Desk) -> None:
    await desk.give_back(await desk.taken())


async def park_and_promote(desk: Desk) -> None:
    await park(desk)
    await desk.ledger.promote(LANES)


async def claim_duplicate(desk: Desk) -> None:
    await complete(desk)
    assert await desk.ledger.claim(await desk.taken(), claim_of()) is Refusal.DUPLICATE


async def claim_republished(desk: Desk) -> None:
    await complete(desk)
    assert await desk.ledger.claim(await desk.taken(), claim_of(stream=f"{RESULTS}:x")) is Refusal.REPUBLISHED


async def claim_busy(desk: Desk) -> None:
    await desk.leased()
    assert await desk.ledger.claim(await desk.taken(), claim_of()) is Refusal.BUSY


async def claim_in_the_way(desk: Desk) -> None:
    desk.redis.set("responses:request:acme:r", "mine", px=HOUR_MS)
    assert await desk.ledger.claim(await desk.taken(), claim_of()) is Refusal.DEAD_LETTERED


GONE: dict[str, tuple[str, Scene]] = {
    scene.__name__: (command, scene)
    for command, scene in (
        ("answer", answer),
        ("bury", bury),
        ("release", release),
        ("release", give_back),
        ("park", park_and_promote),
        ("claim", claim_duplicate),
        ("claim", claim_republished),
        ("claim", claim_busy),
        ("claim", claim_in_the_way),
    )
}


@pytest.mark.parametrize("name", GONE)
async def test_asked_again_once_its_delivery_is_gone_it_changes_nothing(desk: Desk, name: str) -> None:
    """The asker would do nothing more in either case, so the ledger does not remember which it was."""
    command, scene = GONE[name]
    await scene(desk)
    before = desk.everything()

    reply = await desk.runner.repeat(command)

    assert getattr(reply, "status", reply) == "SUPERSEDED"
    assert desk.everything() == before


async def test_an_overtaken_completion_asked_again_is_still_a_duplicate(desk: Desk) -> None:
    await complete_answered(desk)
    before = desk.everything()

    assert await desk.runner.repeat("complete") == "DUPLICATE"
    assert desk.everything() == before


async def promote(desk: Desk) -> None:
    await park(desk)
    assert await desk.ledger.promote(LANES) == 1


async def reclaim(desk: Desk) -> None:
    await begin(desk)
    assert len(await desk.reclaimed()) == 1


async def forget(desk: Desk) -> None:
    await complete(desk)
    desk.advance(HOUR_MS)
    assert await desk.ledger.forget() == 1


@pytest.mark.parametrize(("command", "scene"), [("promote", promote), ("reclaim", reclaim), ("forget", forget)])
async def test_what_housekeeping_did_is_not_done_again(desk: Desk, command: str, scene: Scene) -> None:
    """A crash is counted once, nothing is pushed to a lane twice."""
    await scene(desk)
    before = desk.everything()

    assert await desk.runner.repeat(command) in (0, Reclaim([], frozenset(LANES)))
    assert desk.everything() == before


async def test_cancelling_twice_is_cancelling_once(desk: Desk) -> None:
    """Only the time until the cancellation is forgotten starts anew."""
    await cancel(desk)
    before = {key: value for key, (value, _) in desk.everything().items()}

    assert await desk.runner.repeat("cancel") == "parked"
    assert {key: value for key, (value, _) in desk.everything().items()} == before


async def test_renewing_twice_is_renewing_once(desk: Desk) -> None:
    await renewal(desk)
    before = desk.everything()

    (token,) = desk.redis.hkeys("responses:inflight:interactive")
    assert renew(desk.redis, [("interactive", token.decode()), ("batch", "gone")], upstream="default") == {"gone"}
    assert desk.everything() == before
