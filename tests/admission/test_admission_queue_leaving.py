"""A request leaves its line when it is cancelled or its time or patience ends; no grant is lost with it."""

import asyncio
from dataclasses import replace
from typing import Final

import pytest
import redis
from support.admission_parts import answered
from support.admission_queue_parts import FAST, Rooms, opened, soon

from worker.admission.admission_queue import BULK
from worker.admission.grants import NotAdmitted, Reason, Reservation

DEAD: Final = "authentication_failed"


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


async def test_a_call_that_cannot_end_in_time_is_not_started(rooms: Rooms) -> None:
    """Calls of this kind were seen to take longer; the request is told at once, and holds up nobody behind it."""
    for number in range(12):
        call = await soon(rooms.enter(f"slow-{number}"))
        assert isinstance(call, Reservation)
        await rooms.admission.report(call, replace(answered(), duration_ms=9_000))

    late, in_time = rooms.enter("late", ends_s=4.0), rooms.enter("in-time")
    told = await soon(late)

    assert isinstance(told, NotAdmitted)
    assert told.reason is Reason.LATE
    assert 8_900 <= told.needed_ms <= 20_000
    assert 3_000 <= told.left_ms <= 4_000
    assert isinstance(await soon(in_time), Reservation)


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


@pytest.mark.parametrize("obstacle", ["throttled", "paused"])
async def test_patience_is_for_dead_upstreams_only(rooms: Rooms, obstacle: str) -> None:
    """Waiting for the budget, or for an operator, ends at the deadline and no earlier."""
    await (rooms.pause(60) if obstacle == "throttled" else rooms.admission.pause())

    deferred = await soon(rooms.enter("a", patience_s=0.0, within_s=0.4))

    assert isinstance(deferred, NotAdmitted)
    assert deferred.reason is Reason.TIME


async def test_who_is_cancelled_while_waiting_leaves_the_line(rooms: Rooms) -> None:
    await rooms.admission.pause()
    gone, stays = await rooms.waiting("gone"), await rooms.waiting("stays")
    gone.cancel()
    await rooms.admission.resume()

    assert isinstance(await soon(stays), Reservation)
    assert rooms.permits() == 1


async def test_a_grant_for_someone_who_left_meanwhile_is_given_back(rooms: Rooms) -> None:
    """Cancelled some turns of the loop after it came, or after its question was sent: no permit may stay."""
    for turns in range(160):
        asked = rooms.runner.counts["admit"]
        waiting = rooms.enter(f"a-{turns}")
        if turns % 2:
            await rooms.runner.called("admit", asked + 1)
        for _ in range(turns // 2):
            await asyncio.sleep(0)
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
