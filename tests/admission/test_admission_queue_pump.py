"""A room asks the fleet's budget seldom, takes no more than it can soon call, and goes on after any trouble."""

import asyncio
import time
from typing import Any

import pytest
import redis
from support.admission_queue_parts import FAST, Rooms, opened, soon

from worker.admission import admission_queue
from worker.admission.admission_queue import GATED_ROOM, SHORTEST_ROOM
from worker.admission.grants import Reservation


@pytest.mark.parametrize("state", ["throttled", "paused", "gated", "concurrency", "share of nothing"])
async def test_a_full_room_asks_at_a_bounded_rate(valkey: redis.Redis, redis_url: str, state: str) -> None:
    """At most twenty calls a second and lane, however many wait and whatever they wait for."""
    async with opened(valkey, redis_url, requests_per_minute=FAST, max_in_flight=1) as rooms:
        if state == "throttled":
            await rooms.pause(60)
        elif state == "paused":
            await rooms.admission.pause()
        elif state == "gated":
            await rooms.shut()
        else:
            await rooms.call()
        rooms.runner.counts.clear()
        waiting = [rooms.enter(f"a-{number}", patience_s=60) for number in range(300)]
        began = time.monotonic()
        await asyncio.wait(waiting, timeout=0.6)
        seconds = time.monotonic() - began
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

        ceiling = {"throttled": 1, "paused": 1, "gated": 1}.get(state, 20)
        assert 1 <= rooms.runner.counts["admit"] <= ceiling * seconds + 2


async def test_an_empty_room_asks_nothing(rooms: Rooms) -> None:
    await soon(rooms.enter("a"))
    rooms.runner.counts.clear()
    await asyncio.wait([asyncio.create_task(asyncio.sleep(0.2))])

    assert rooms.runner.counts == {}


async def test_many_are_admitted_in_few_calls(rooms: Rooms) -> None:
    waiting = [rooms.enter(f"a-{number}") for number in range(400)]
    await asyncio.wait_for(asyncio.gather(*waiting), 10)

    assert rooms.runner.counts["admit"] <= 30


async def test_a_room_takes_about_a_second_of_the_fleets_rate(valkey: redis.Redis, redis_url: str) -> None:
    """A process that hoards strands its hoard when it dies."""
    async with opened(valkey, redis_url, requests_per_minute=6_000) as rooms:
        assert rooms.rooms.vacancies("batch") == SHORTEST_ROOM
        await soon(rooms.enter("a", lane="batch"))

        assert rooms.rooms.vacancies("batch") == 100
        assert rooms.rooms.vacancies("interactive") == SHORTEST_ROOM


async def test_a_dead_upstream_leaves_the_backlog_in_its_lane(rooms: Rooms) -> None:
    await soon(rooms.enter("a"))
    await rooms.shut()
    waiting = [rooms.enter(f"b-{number}", within_s=0.2) for number in range(5)]
    await asyncio.wait([rooms.enter("c", within_s=0.1)])

    assert rooms.rooms.vacancies("interactive") == GATED_ROOM - 5
    await asyncio.wait(waiting)


async def test_the_pump_survives_a_script_that_refuses(
    rooms: Rooms, valkey: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key of ours that holds something else is an operator's to repair; then everything goes on."""
    monkeypatch.setattr("worker.admission.admission_queue.LONGEST_SLEEP_S", 0.05)
    valkey.set("responses:quota:default", "x")
    waiting = rooms.enter("a")
    await rooms.runner.called("admit", 2)
    valkey.delete("responses:quota:default")

    assert isinstance(await soon(waiting), Reservation)


async def test_the_pump_survives_lost_connections(rooms: Rooms, valkey: Any) -> None:
    for number in range(20):
        waiting = rooms.enter(f"a-{number}")
        valkey.client_kill_filter(_type="normal", skipme=True)
        assert isinstance(await soon(waiting), Reservation)

    assert rooms.permits() == 20


async def test_a_call_that_ends_here_makes_room_at_once(
    valkey: redis.Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody would look again within this test."""
    monkeypatch.setattr(admission_queue, "SHORTEST_SLEEP_S", 600.0)
    async with opened(valkey, redis_url, requests_per_minute=FAST, max_in_flight=1) as rooms:
        first = await soon(rooms.enter("first"))
        second = rooms.enter("second", lane="batch")
        await rooms.runner.called("admit", 2)

        assert isinstance(first, Reservation)
        await rooms.rooms.report(first, None)

        assert isinstance(await soon(second), Reservation)


async def test_a_room_tells_of_each_vacancy(rooms: Rooms) -> None:
    left: list[str] = []
    rooms.rooms.rooms["batch"].left = lambda: left.append("batch")

    await soon(rooms.enter("a", lane="batch"))

    assert left == ["batch"]
