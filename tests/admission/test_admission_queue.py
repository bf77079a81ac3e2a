"""Requests are admitted in order within their lane, and no lane waits for another."""

import asyncio
import time
from collections.abc import Sequence

import pytest
import redis
from support.admission_parts import answered
from support.admission_queue_parts import FAST, Rooms, opened, soon

from worker.admission.client import Admission
from worker.admission.evidence import Evidence
from worker.admission.grants import Ask, Grant, NotAdmitted, Reason, Reservation


async def test_a_free_budget_admits_at_once(rooms: Rooms) -> None:
    granted = await soon(rooms.enter("a"))

    assert isinstance(granted, Reservation)
    assert (granted.token, granted.tokens, granted.gate, rooms.permits()) == ("a", 10, "", 1)
    assert granted.waited_ms < 1_000
    assert abs(granted.granted_at_ms - time.time() * 1000) < 2_000


async def test_who_came_first_is_served_first(valkey: redis.Redis, redis_url: str) -> None:
    order: list[str] = []
    async with opened(valkey, redis_url, requests_per_minute=FAST // 4, burst_s=0.1) as rooms:
        waiting = [rooms.enter(f"{number:03}") for number in range(150)]
        for task in waiting:
            task.add_done_callback(lambda done: order.append(done.get_name()))
        await asyncio.wait_for(asyncio.gather(*waiting), 10)

    assert order == sorted(order)
    assert len(order) == 150


async def test_a_large_request_is_not_overtaken_in_its_lane(valkey: redis.Redis, redis_url: str) -> None:
    async with opened(valkey, redis_url, tokens_per_minute=60_000, burst_s=1.0) as rooms:
        await soon(rooms.enter("first", tokens=500))
        large, small = rooms.enter("large", tokens=600), rooms.enter("small", tokens=1)
        done, _ = await asyncio.wait([large, small], return_when=asyncio.FIRST_COMPLETED, timeout=5)

        assert large in done
        await soon(small)


async def test_lanes_do_not_wait_for_each_other(valkey: redis.Redis, redis_url: str) -> None:
    async with opened(valkey, redis_url, tokens_per_minute=600, burst_s=1.0) as rooms:
        await soon(rooms.enter("first", lane="batch", tokens=1))
        flood = [rooms.enter(f"batch-{number}", lane="batch", tokens=600) for number in range(5)]

        assert isinstance(await soon(rooms.enter("small", tokens=1)), Reservation)
        for task in flood:
            task.cancel()
        await asyncio.gather(*flood, return_exceptions=True)


async def test_what_never_fits_is_told_at_once(valkey: redis.Redis, redis_url: str) -> None:
    async with opened(valkey, redis_url, pumping=False, tokens_per_minute=1_000) as rooms:
        assert await soon(rooms.enter("a", tokens=1_001), 0.5) == NotAdmitted(Reason.NEVER, 0)
        assert rooms.runner.counts == {}


async def test_retries_beyond_their_share_come_back_later(rooms: Rooms) -> None:
    retries = [rooms.enter(f"again-{number}", failures=1) for number in range(20)]
    outcomes = await asyncio.wait_for(asyncio.gather(*retries), 5)

    assert sum(isinstance(one, Reservation) for one in outcomes) == 10
    assert {one.reason for one in outcomes if isinstance(one, NotAdmitted)} == {Reason.LATER}
    assert isinstance(await soon(rooms.enter("first")), Reservation)


async def test_retries_that_help_make_room_for_the_next(rooms: Rooms) -> None:
    """The tail of a large backlog is retries alone, of a gateway in order; it does not take seconds for each."""
    waiting = {f"again-{number}" for number in range(60)}
    async with asyncio.timeout(10):
        while waiting:
            outcomes = await asyncio.gather(*(rooms.enter(token, failures=1) for token in waiting))
            granted = [one for one in outcomes if isinstance(one, Reservation)]
            await asyncio.gather(*(rooms.admission.tell(one, Evidence(verdict="ok", used_tokens=1)) for one in granted))
            waiting -= {one.token for one in granted}


async def test_a_probe_says_which_gate_it_tries(rooms: Rooms) -> None:
    await rooms.shut(probe_s=0.05)
    first, second = rooms.enter("first"), rooms.enter("second", within_s=0.3)

    probe = await soon(first)

    assert isinstance(probe, Reservation)
    assert probe.gate == "authentication_failed"
    await rooms.admission.abandon(probe)
    await asyncio.wait([second])


async def test_a_probe_that_is_answered_wakes_those_who_wait_at_the_gate(rooms: Rooms) -> None:
    await rooms.shut(probe_s=0.05)
    probe = await soon(rooms.enter("first"))
    assert isinstance(probe, Reservation)
    waiting = rooms.enter("second")
    await asyncio.wait([waiting], timeout=0.2)
    await rooms.rooms.report(probe, answered())

    assert isinstance(await soon(waiting, 0.4), Reservation)


async def test_a_long_line_is_not_asked_about_again_and_again(
    valkey: redis.Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each admission costs what it does in a short line; nobody loses a place in it."""
    asked: list[int] = []
    grant = Admission.grant

    async def counted(self: Admission, lane: str, weight: int, asks: Sequence[Ask]) -> Grant:
        asked.append(len(asks))
        return await grant(self, lane, weight, asks)

    monkeypatch.setattr(Admission, "grant", counted)
    async with opened(valkey, redis_url, requests_per_minute=3000, burst_s=0.2) as rooms:
        await asyncio.wait_for(asyncio.gather(*(rooms.enter(f"{number:03}") for number in range(120))), 10)

    assert sum(asked) <= 120 * 8
