"""Requests wait in line, for as long as they may, and without a polling storm."""

import asyncio
import time
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any, Final

import pytest
import redis
from support.admission_parts import answered
from support.admission_queue_parts import FAST, Rooms, opened, soon

from worker.admission import admission_queue
from worker.admission.admission_queue import BULK, GATED_ROOM, SHORTEST_ROOM
from worker.admission.grants import NotAdmitted, Reason, Reservation

DEAD: Final = "authentication_failed"


@pytest.fixture
async def rooms(valkey: redis.Redis, redis_url: str) -> AsyncGenerator[Rooms]:
    """A thousand calls a second."""
    async with opened(valkey, redis_url, requests_per_minute=FAST) as rooms:
        yield rooms


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


async def test_a_deadline_ends_the_wait(rooms: Rooms) -> None:
    await rooms.pause(60)

    deferred = await soon(rooms.enter("a", within_s=0.2))

    assert isinstance(deferred, NotAdmitted)
    assert (deferred.reason, deferred.code) == (Reason.TIME, "")
    assert 190 <= deferred.waited_ms < 2_000


async def test_a_deadline_that_has_passed_admits_nothing(rooms: Rooms) -> None:
    deferred = await soon(rooms.enter("a", within_s=0.0))

    assert isinstance(deferred, NotAdmitted)
    assert deferred.reason is Reason.TIME


async def test_patience_ends_on_a_dead_upstream_with_its_code(rooms: Rooms) -> None:
    await rooms.shut()
    hasty, patient = rooms.enter("hasty", patience_s=0.1), rooms.enter("patient", lane="batch")

    deferred = await soon(hasty)

    assert isinstance(deferred, NotAdmitted)
    assert (deferred.reason, deferred.code) == (Reason.GATE, DEAD)
    assert not patient.done()
    patient.cancel()
    await asyncio.gather(patient, return_exceptions=True)


async def test_all_whose_patience_is_over_leave_in_one_round_and_more_are_taken(rooms: Rooms) -> None:
    """A thousand that waited for an hour are answered within seconds, not sixteen a second."""
    await rooms.shut()
    waiting = [rooms.enter(f"a-{number}", patience_s=0.0) for number in range(300)]

    left = await asyncio.wait_for(asyncio.gather(*waiting), 2)

    assert {(one.reason, one.code) for one in left if isinstance(one, NotAdmitted)} == {(Reason.GATE, DEAD)}
    assert rooms.rooms.vacancies("interactive") == BULK
    assert rooms.permits() == 0


async def test_patience_runs_from_the_confirmation_of_the_gate(rooms: Rooms) -> None:
    """A long wait for the budget is no wait for a dead key."""
    await rooms.shut()

    deferred = await soon(rooms.enter("old", patience_s=1.0, enqueued_s_ago=3_600))

    assert isinstance(deferred, NotAdmitted)
    assert deferred.reason is Reason.GATE
    assert deferred.waited_ms > 700


async def test_a_call_that_cannot_end_in_time_is_not_started(rooms: Rooms) -> None:
    """Calls of this kind were seen to take longer; the request is told at once, and holds up nobody behind it."""
    for number in range(12):
        call = await soon(rooms.enter(f"slow-{number}"))
        assert isinstance(call, Reservation)
        await rooms.admission.report(replace(call, granted_at_ms=call.granted_at_ms - 9_000), answered())

    late, in_time = rooms.enter("late", ends_s=4.0), rooms.enter("in-time")
    told = await soon(late)

    assert isinstance(told, NotAdmitted)
    assert told.reason is Reason.LATE
    assert 8_900 <= told.needed_ms <= 20_000
    assert 3_000 <= told.left_ms <= 4_000
    assert isinstance(await soon(in_time), Reservation)


async def test_retries_beyond_their_share_come_back_later(rooms: Rooms) -> None:
    retries = [rooms.enter(f"again-{number}", failures=1) for number in range(20)]
    outcomes = await asyncio.wait_for(asyncio.gather(*retries), 5)

    assert sum(isinstance(one, Reservation) for one in outcomes) == 10
    assert {one.reason for one in outcomes if isinstance(one, NotAdmitted)} == {Reason.LATER}
    assert isinstance(await soon(rooms.enter("first")), Reservation)


@pytest.mark.parametrize("obstacle", ["throttled", "paused"])
async def test_patience_is_for_dead_upstreams_only(rooms: Rooms, obstacle: str) -> None:
    """Waiting for the budget, or for an operator, ends at the deadline and no earlier."""
    await (rooms.pause(60) if obstacle == "throttled" else rooms.admission.pause())

    deferred = await soon(rooms.enter("a", patience_s=0.0, within_s=0.4))

    assert isinstance(deferred, NotAdmitted)
    assert deferred.reason is Reason.TIME


async def test_a_probe_says_which_gate_it_tries(rooms: Rooms) -> None:
    await rooms.shut(probe_s=0.05)
    first, second = rooms.enter("first"), rooms.enter("second", within_s=0.3)

    probe = await soon(first)

    assert isinstance(probe, Reservation)
    assert probe.gate == "authentication_failed"
    await rooms.admission.abandon(probe)
    await asyncio.wait([second])


async def test_who_is_cancelled_while_waiting_leaves_the_line(rooms: Rooms) -> None:
    await rooms.admission.pause()
    gone, stays = await rooms.waiting("gone"), await rooms.waiting("stays")
    gone.cancel()
    await rooms.admission.resume()

    assert isinstance(await soon(stays), Reservation)
    assert rooms.permits() == 1


async def test_a_grant_for_someone_who_left_meanwhile_is_given_back(rooms: Rooms) -> None:
    """Cancelled at every possible moment around the grant: no permit may stay.

    The pauses are the moments, counted in turns of the loop; nothing is waited for.
    """
    for turns in range(80):
        waiting = rooms.enter(f"a-{turns}")
        for _ in range(turns % 20):
            await asyncio.sleep(0.0001 if turns % 2 else 0)
        waiting.cancel()
        (outcome,) = await asyncio.gather(waiting, return_exceptions=True)
        if isinstance(outcome, Reservation):
            await rooms.admission.report(outcome, None)
    await soon(rooms.enter("last"))

    assert rooms.permits() == 1


async def test_a_grant_that_arrives_as_its_request_leaves_is_not_lost(valkey: redis.Redis, redis_url: str) -> None:
    """Both in one turn of the loop: it is used, or given back, and never forgotten."""
    async with opened(valkey, redis_url, requests_per_minute=FAST) as rooms:
        await soon(rooms.enter("first"))
        for number in range(10):
            waiting = await rooms.waiting(f"a-{number}")
            left = asyncio.Event()
            rooms.rooms.rooms["interactive"].left = left.set
            await left.wait()
            waiting.cancel()
            (outcome,) = await asyncio.gather(waiting, return_exceptions=True)
            if isinstance(outcome, Reservation):
                await rooms.admission.report(outcome, None)

        assert rooms.permits() == 1


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
    await rooms.runner.asked("admit", 2)
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
        await rooms.runner.asked("admit", 2)

        assert isinstance(first, Reservation)
        await rooms.rooms.report(first, None)

        assert isinstance(await soon(second), Reservation)


async def test_a_room_tells_of_each_vacancy(rooms: Rooms) -> None:
    left: list[str] = []
    rooms.rooms.rooms["batch"].left = lambda: left.append("batch")

    await soon(rooms.enter("a", lane="batch"))

    assert left == ["batch"]
