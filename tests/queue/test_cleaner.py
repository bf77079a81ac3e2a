"""The cleaner takes kept results and dead letters that are old, brings back what is due or lost, and goes on."""

import asyncio
from contextlib import suppress

import pytest
from support.cleaner_parts import DAY_MS, House
from support.ledger_parts import COMPLETED, LANES, claim_of, eventually

from worker.queue import maintenance
from worker.queue.claims import Lease
from worker.queue.maintenance import FORGOTTEN_AT_ONCE


async def test_dead_letters_go_after_thirty_days(house: House) -> None:
    """Also when no newer one comes: they hold prompts."""
    for age_ms in (30 * DAY_MS + 1, 30 * DAY_MS, 0):
        house.redis.xadd("responses:dead", {"message": age_ms}, id=f"{house.desk.now_ms - age_ms}-0")

    await house.retain()

    assert [fields[b"message"] for _, fields in house.redis.xrange("responses:dead")] == [b"%d" % (30 * DAY_MS), b"0"]


async def test_one_round_drops_all_kept_results_that_are_due(house: House) -> None:
    """A bound on each call must not become a bound on what a busy fleet may answer."""
    count = 2 * FORGOTTEN_AT_ONCE + 1
    house.desk.enqueue(*(str(number) for number in range(count)))
    while deliveries := await house.desk.take(interactive=64):
        for delivery in deliveries:
            lease = await house.desk.ledger.claim(delivery, claim_of(delivery.message.decode()))
            assert isinstance(lease, Lease)
            await house.desk.ledger.complete(lease, COMPLETED, kept_ms=0)

    await house.retain()

    assert house.redis.zcard("responses:kept") == 0
    assert "result" not in house.desk.request(str(count - 1))


async def test_what_is_due_is_promoted_and_what_is_lost_is_reclaimed(house: House) -> None:
    lease = await house.desk.leased()
    await house.desk.ledger.park(lease, delay_ms=10, failures=0, throttle_ms=0)
    lost = await house.desk.taken("lost", lane="batch")
    house.desk.advance(10)

    await house.keeping.promote(LANES)
    for _ in range(6):
        await house.keeping.reclaim()
        house.desk.advance(3_000)

    assert [row.token for row in house.heard.reclaimed] == [lost.token]
    assert house.desk.places() == {"queued": 2}


async def test_a_step_that_fails_is_told_and_does_not_stop_the_others(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TICK_S", "RECLAIM_S", "RETAIN_S"):
        monkeypatch.setattr(maintenance, name, 0.01)
    await house.desk.reclaimed()  # one lease after the first tick something may be reclaimed
    house.redis.set("responses:kept", "mine")
    house.desk.redis.zadd("responses:leases:batch", {"forgotten": 1})

    running = asyncio.create_task(house.keeping.run())
    await eventually(lambda: len(house.heard.refusals) > 2 and not house.redis.exists("responses:leases:batch"))
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running

    assert "WRONGTYPE" in str(house.heard.refusals[0])
    house.redis.delete("responses:kept")
