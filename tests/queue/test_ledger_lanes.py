"""Taking messages: order, priorities, shares, and what a lost reply or a crowd of bytes must not do."""

from dataclasses import replace
from typing import Any

import pytest
from celery import Celery
from support.ledger_parts import FAILED, LANES, LEASE_MS, Desk, claim_of

from worker.queue import ledger
from worker.queue.claims import WriteOutcome


def texts(deliveries: list[Any]) -> list[str]:
    return [delivery.message.decode() for delivery in deliveries]


async def test_the_oldest_message_comes_first(desk: Desk) -> None:
    desk.enqueue("a", "b", "c")

    assert texts(await desk.take(interactive=2)) == ["a", "b"]
    assert desk.lane() == ["c"]


async def test_priorities_go_from_the_plain_list_to_nine(desk: Desk) -> None:
    """Celery's Redis transport calls 0 the highest and keeps 3, 6 and 9 in lists with a suffix."""
    for priority in ("\x06\x169", "\x06\x163", "\x06\x166", ""):
        desk.enqueue(f"old{priority[-1:]}", f"new{priority[-1:]}", priority=priority)

    taken = texts(await desk.take(interactive=10))

    assert taken == ["old", "new", "old3", "new3", "old6", "new6", "old9", "new9"]


async def test_celery_puts_priorities_where_they_are_looked_for(desk: Desk, redis_url: str) -> None:
    """The suffix is kombu's own, not a copy of it."""
    app: Any = Celery(broker=redis_url, set_as_current=False)
    with app:
        for priority in (9, 6, 3, 0):
            app.send_task("responses.create", args=[priority], queue="responses.interactive", priority=priority)

    taken = await desk.take(interactive=4)

    assert [delivery.message.split(b'"priority": ')[1][:1] for delivery in taken] == [b"0", b"3", b"6", b"9"]


async def test_each_lane_gives_its_quota_first(desk: Desk) -> None:
    desk.enqueue(*"abcdef")
    desk.enqueue(*"123456", lane="batch")

    assert texts(await desk.take(interactive=3, batch=1)) == ["a", "b", "c", "1"]


@pytest.mark.parametrize(
    ("interactive", "batch", "expected"),
    [("", "1234", "1234"), ("abcd", "", "abcd"), ("a", "1234", "a123"), ("abcd", "1", "a1bc"), ("a", "1", "a1")],
)
async def test_what_one_lane_leaves_another_takes(desk: Desk, interactive: str, batch: str, expected: str) -> None:
    """No place stays empty while any lane has work."""
    desk.enqueue(*interactive)
    desk.enqueue(*batch, lane="batch")

    quotas = {"interactive": 1, "batch": 3} if len(interactive) == 4 else {"interactive": 3, "batch": 1}
    taken = await desk.take(**quotas)

    assert "".join(texts(taken)) == expected


async def test_nothing_is_taken_without_a_place(desk: Desk) -> None:
    desk.enqueue("a")

    assert await desk.take(interactive=0, batch=0) == []
    assert desk.places() == {"queued": 1}


async def test_what_is_taken_is_in_flight_under_a_lease(desk: Desk) -> None:
    desk.enqueue("a", lane="batch")

    (delivery,) = await desk.take(interactive=1, batch=1)

    assert delivery.lane == "batch"
    assert desk.places() == {"inflight": 1}
    assert desk.redis.zscore("responses:leases:batch", delivery.token) == desk.now_ms + LEASE_MS


async def test_a_message_may_hold_any_bytes(desk: Desk) -> None:
    """Newlines, NUL and what is no text come back as they were, also from the way back to the lane."""
    message = b'\n\x00\xff{"a":\r\n1}\n'
    desk.redis.lpush("responses.interactive", message)

    (delivery,) = await desk.take()
    await desk.give_back(delivery)
    (again,) = await desk.take()

    assert delivery.message == again.message == message


@pytest.mark.parametrize(
    ("most_bytes", "expected"), [(1, "A"), (100, "A"), (299, "AB"), (300, "ABC"), (601, "ABCDEFyx")]
)
async def test_a_pop_ends_before_it_has_too_many_bytes(desk: Desk, most_bytes: int, expected: str) -> None:
    """It brings at least one message, and passes over none for a smaller one behind it."""
    for letter in "ABCDEF":
        desk.enqueue(letter * 100)
    desk.enqueue("y", priority="\x06\x169")
    desk.enqueue("x", lane="batch")

    most = most_bytes if most_bytes < 601 else 602
    taken = (await desk.ledger.pop({"interactive": 10, "batch": 10}, None, most)).deliveries

    assert b"".join(delivery.message[:1] for delivery in taken).decode() == expected
    assert desk.places().get("inflight") == len(expected)


async def test_a_pop_whose_reply_was_lost_finds_what_it_took(desk: Desk) -> None:
    desk.enqueue(*"abcd")
    desk.enqueue("1", lane="batch")

    await desk.take(interactive=2, batch=1)
    before = desk.everything()
    first = await desk.runner.repeat("pop")
    second = await desk.runner.repeat("pop")

    assert first == second
    assert first.empty == frozenset()  # of what it does not know
    assert [one.message for one in first.deliveries] == [b"a", b"b", b"1"]
    assert desk.everything() == before


@pytest.mark.parametrize(("gone", "expected"), [(0, "axy"), (1, "a"), (2, "ab")])
async def test_a_pop_repeated_after_part_of_it_was_reclaimed_gives_no_token_twice(
    desk: Desk, gone: int, expected: str
) -> None:
    """Redis was away for longer than a lease: some of a pop is back in its lane when the pop is asked again.

    Were its tokens given anew, messages would be stored over those still in flight, and lose them.
    """
    desk.enqueue(*"abc")
    taken = await desk.take(interactive=3)
    await desk.give_back(taken[gone])
    desk.enqueue(*"xyz")

    again = await desk.runner.repeat("pop")

    assert b"".join(one.message for one in again.deliveries).decode() == expected
    assert len(desk.redis.hkeys("responses:inflight:interactive")) == 6 - len(desk.lane())


async def test_a_pop_repeated_after_all_of_it_is_done_takes_anew(desk: Desk) -> None:
    """Such a reply may even reach nobody: what it takes then comes back when its lease ends."""
    desk.enqueue(*"ab")
    (delivery,) = await desk.take()
    await desk.ledger.bury(delivery, "done")

    again = await desk.runner.repeat("pop")

    assert [one.message for one in again.deliveries] == [b"b"]
    assert desk.places() == {"inflight": 1}


async def test_two_workers_never_take_the_same_message(desk: Desk) -> None:
    desk.enqueue(*(str(number) for number in range(100)))

    pops = [await desk.take(interactive=7) for _ in range(20)]

    taken = [delivery for pop in pops for delivery in pop]
    assert texts(taken) == [str(number) for number in range(100)]
    assert len({delivery.token for delivery in taken}) == 100


async def test_given_back_means_next(desk: Desk) -> None:
    """To the front of the list it came from, whatever its priority."""
    desk.enqueue("a", "b", priority="\x06\x166")
    (delivery,) = await desk.take()

    verdict = await desk.give_back(delivery)

    assert verdict is WriteOutcome.OK
    assert desk.lane(priority="\x06\x166") == ["a", "b"]


async def test_what_cannot_be_read_becomes_a_dead_letter(desk: Desk) -> None:
    delivery = await desk.taken("junk")

    assert await desk.ledger.bury(delivery, "not JSON") is WriteOutcome.OK
    assert desk.dead() == [("not JSON", "junk")]
    assert desk.places() == {}


async def test_dead_letters_are_bounded_by_count(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A week of junk must not fill Redis; the bound is 100,000, here made small."""
    small = {
        name: getattr(ledger.DELIVERIES, name).replace("'MAXLEN', '~', 100000,", "'MAXLEN', '~', 200,")
        for name in ("refusing", "insisting")
    }
    monkeypatch.setattr(ledger, "DELIVERIES", replace(ledger.DELIVERIES, **small))
    desk.enqueue(*(f"junk {number}" for number in range(600)))

    while deliveries := await desk.take(interactive=64):
        for delivery in deliveries:
            await desk.ledger.bury(delivery, "not JSON")

    assert 200 <= len(desk.dead()) < 400
    assert desk.dead()[-1] == ("not JSON", "junk 599")


@pytest.mark.parametrize("lane", LANES)
async def test_a_lane_that_is_no_list_stops_nobody_else(desk: Desk, lane: str) -> None:
    """A team that breaks its own lane has broken its own lane."""
    (other,) = set(LANES) - {lane}
    desk.redis.set(f"responses.{lane}", "mine")
    desk.enqueue("a", lane=other)

    assert texts(await desk.take(interactive=1, batch=1)) == ["a"]


async def test_claimed_or_not_a_delivery_is_known_by_its_token_only(desk: Desk) -> None:
    """A message that was taken twice has two tokens, and the first means nothing any more."""
    first = await desk.taken("a")
    await desk.give_back(first)
    (second,) = await desk.take()

    assert await desk.ledger.bury(first, "stale") is WriteOutcome.SUPERSEDED
    assert await desk.ledger.answer(first, claim_of(), FAILED) is WriteOutcome.SUPERSEDED
    assert await desk.give_back(first) is WriteOutcome.SUPERSEDED
    assert desk.places() == {"inflight": 1}
    assert second.token != first.token
