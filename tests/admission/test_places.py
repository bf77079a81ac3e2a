"""A process calls no more at once than it has places, and a place is free as soon as its call is over."""

import asyncio

import pytest
import redis
from support.admission_queue_parts import FAST, opened, soon

from worker.admission import places as places_module
from worker.admission.grants import NotAdmitted, Reservation
from worker.admission.places import AHEAD_S, Places

Waiting = asyncio.Task[Reservation | NotAdmitted]


async def granted(waiting: Waiting) -> Reservation:
    found = await soon(waiting)
    assert isinstance(found, Reservation)
    return found


async def test_those_without_a_place_ask_for_nothing(valkey: redis.Redis, redis_url: str) -> None:
    """In no lane: a grant without a place would be taken from the fleet for nothing."""
    async with opened(valkey, redis_url, places=3, requests_per_minute=FAST) as rooms:
        first = [await granted(rooms.enter(f"a{number}")) for number in range(3)]
        waiting = [rooms.enter("b"), rooms.enter("c", lane="batch")]
        asked = rooms.runner.counts["admit"]
        await rooms.rooms.heard(first[0])  # a round trip later

        assert (rooms.permits(), rooms.runner.counts["admit"]) == (3, asked)
        assert not any(task.done() for task in waiting)

        for one in first[:2]:
            await rooms.rooms.report(one, None)
        assert {one.token for one in [await granted(task) for task in waiting]} == {"b", "c"}


async def test_the_next_call_is_admitted_before_the_report_of_the_last_is_answered(
    valkey: redis.Redis, redis_url: str
) -> None:
    """The fleet hears of the end first, so that a budget of one call at once has room again."""
    async with opened(valkey, redis_url, places=1, requests_per_minute=FAST, max_in_flight=1) as rooms:
        first = await granted(rooms.enter("a"))
        waiting = rooms.enter("b")
        order: list[str] = []
        waiting.add_done_callback(lambda _: order.append("b"))

        reporting = asyncio.create_task(rooms.rooms.report(first, None))
        reporting.add_done_callback(lambda _: order.append("reported"))
        await granted(waiting)
        await reporting

        assert sorted(order) == ["b", "reported"]
        assert rooms.runner.counts["admit"] <= 3


@pytest.mark.parametrize("leaves", ["without a report", "cancelled"])
async def test_no_way_out_keeps_a_place(valkey: redis.Redis, redis_url: str, leaves: str) -> None:
    async with opened(valkey, redis_url, places=1, requests_per_minute=FAST) as rooms:
        task = rooms.enter("a")
        if leaves == "cancelled":
            await rooms.runner.called("admit", 1)
            task.cancel()
            await asyncio.wait([task])
        else:
            await granted(task)
            rooms.rooms.leave("a")

        await granted(rooms.enter("b"))


def test_requests_are_held_ready_at_the_pace_of_the_last_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(places_module.time, "monotonic", lambda: now)
    places = Places(100)
    for number in range(300):
        places.take(f"{number}")
        now += 1 / 300
        places.leave(f"{number}")

    assert places.ahead == pytest.approx(300 * AHEAD_S, abs=1)
    now += 0.5
    assert places.ahead == pytest.approx(150 * AHEAD_S, abs=1)
    now += 0.6
    assert places.ahead == 0


def test_slow_calls_have_nothing_held_ready_and_quick_ones_at_most_their_number() -> None:
    slow, quick = Places(10), Places(10)
    for number in range(4):
        slow.take(f"{number}")
        slow.leave(f"{number}")
    for number in range(1_000):
        quick.take(f"{number}")
        quick.leave(f"{number}")

    assert (slow.ahead, quick.ahead) == (0, 10)
    assert not quick.leave("7")
