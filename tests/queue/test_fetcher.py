"""The fetcher takes by weight, no more than can start, and strands nothing on the way out."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
import redis
from support.heard import Heard
from support.ledger_parts import Desk, eventually, open_desk

from worker.queue import fetcher
from worker.queue.bell import Lanes
from worker.queue.claims import Delivery, Pop
from worker.queue.fetcher import BULK, Fetcher, Shares
from worker.queue.ledger import Ledger


def quotas(shares: Shares, places: int, **limits: int) -> dict[str, int]:
    """As if every lane that is not named had room for all of it."""
    return shares.quotas(places, dict.fromkeys(shares.weights, places) | limits)


@pytest.mark.parametrize(
    ("weights", "places", "limits", "expected"),
    [
        ({"a": 4, "b": 1}, 10, {}, {"a": 8, "b": 2}),
        ({"a": 4, "b": 1}, 1, {}, {"a": 1, "b": 0}),
        ({"a": 1}, 7, {}, {"a": 7}),
        ({"a": 1, "b": 1, "c": 1}, 6, {}, {"a": 2, "b": 2, "c": 2}),
        ({"a": 4, "b": 1}, 0, {}, {}),
        ({"a": 4, "b": 1}, 10, {"a": 3}, {"a": 3, "b": 7}),
        ({"a": 4, "b": 1}, 10, {"a": 0}, {"b": 10}),
        ({"a": 4, "b": 1}, 10, {"a": 3, "b": 1}, {"a": 3, "b": 1}),
        ({"a": 4, "b": 1}, 10, {"a": 0, "b": 0}, {}),
    ],
)
def test_quotas_follow_the_weights_within_the_limits(
    weights: dict[str, int], places: int, limits: dict[str, int], expected: dict[str, int]
) -> None:
    assert quotas(Shares(weights), places, **limits) == expected


@pytest.mark.parametrize("places", [1, 2, 3, 5, 64])
def test_over_time_each_lane_is_offered_its_share(places: int) -> None:
    """However few places there are at a time."""
    shares = Shares({"a": 5, "b": 2, "c": 1})
    offered: Counter[str] = Counter()

    for _ in range(800):
        offered.update(quotas(shares, places))

    assert offered == {"a": 500 * places, "b": 200 * places, "c": 100 * places}


def test_no_lane_waits_longer_than_it_must() -> None:
    """A light lane's turns are spread, not bunched at the end of a round."""
    shares = Shares({"a": 3, "b": 1})
    turns = [next(lane for lane, quota in quotas(shares, 1).items() if quota) for _ in range(40)]

    assert {turns[start : start + 4].count("b") for start in range(36)} == {1}


def test_a_lane_without_room_saves_nothing_up() -> None:
    """Once it has room again it gets its share, not what it missed."""
    shares = Shares({"a": 1, "b": 1})
    for _ in range(100):
        quotas(shares, 10, a=0)

    assert quotas(shares, 10) == {"a": 5, "b": 5}


def test_what_an_idle_lane_leaves_is_shared_by_weight() -> None:
    """The first of the order takes it all each time, so the order has to change."""
    shares = Shares({"idle": 8, "a": 1, "b": 3}, random.Random(7))
    first: Counter[str] = Counter()

    for _ in range(2_000):
        first[next(lane for lane in quotas(shares, 12) if lane != "idle")] += 1

    assert first["b"] / first["a"] == pytest.approx(3, rel=0.15)


@dataclass
class Worker:
    """An intake and what it started; `places` is what the test says."""

    desk: Desk
    places: int = 100
    vacancies: dict[str, int] = field(default_factory=lambda: {"interactive": 1000, "batch": 1000})
    started: list[Delivery] = field(default_factory=list[Delivery])
    heard: Heard = field(default_factory=Heard)
    asked: int = 0
    task: "asyncio.Task[None]" = field(init=False)
    lanes: Lanes = field(init=False)

    def __post_init__(self) -> None:
        shares = Shares({"interactive": 4, "batch": 1})
        self.lanes = Lanes(lanes=list(shares.weights))
        start = self.started.append
        self.intake = Fetcher(self.desk.ledger, shares, self._left, self._left_in, start, self.heard, self.lanes)

    def begin(self) -> None:
        self.task = asyncio.create_task(self.intake.run())

    def _left(self) -> int:
        self.asked += 1
        return self.places - len(self.started)

    def _left_in(self, lane: str) -> int:
        return self.vacancies[lane] - sum(delivery.lane == lane for delivery in self.started)

    @property
    def pops(self) -> int:
        """Calls of the script since the statistics began."""
        return self.desk.redis.info("commandstats").get("cmdstat_evalsha", {"calls": 0})["calls"]

    async def leave(self) -> None:
        self.task.cancel()
        with suppress(asyncio.CancelledError):
            await self.task


@pytest.fixture
async def worker(valkey: redis.Redis, redis_url: str) -> AsyncGenerator[Worker]:
    async with open_desk(valkey, redis_url) as desk:
        worker = Worker(desk)
        yield worker
        await worker.leave()


async def test_no_more_is_taken_than_there_are_places(worker: Worker) -> None:
    """The rest stays in its lane, where other workers and the autoscaler see it."""
    worker.places = 70
    worker.desk.enqueue(*(str(number) for number in range(100)))

    worker.begin()
    await eventually(lambda: len(worker.started) == 70)
    asked = worker.asked
    await eventually(lambda: worker.asked > asked + 1)

    assert worker.desk.places() == {"queued": 30, "inflight": 70}


async def test_no_more_is_taken_from_a_lane_than_it_has_vacancies(worker: Worker) -> None:
    """Not even what another lane leaves."""
    worker.vacancies = {"interactive": 0, "batch": 3}
    worker.desk.enqueue(*(str(number) for number in range(100)))
    worker.desk.enqueue(*(str(number) for number in range(10)), lane="batch")

    worker.begin()
    await eventually(lambda: len(worker.started) == 3)
    worker.vacancies = {"interactive": 5, "batch": 4}
    await eventually(lambda: len(worker.started) == 9)

    assert Counter(delivery.lane for delivery in worker.started) == {"interactive": 5, "batch": 4}


async def test_a_place_that_becomes_free_is_filled_at_once(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetcher, "ROOM_S", 3600.0)
    worker.places = 1
    worker.desk.enqueue("a", "b")
    worker.begin()
    await eventually(lambda: worker.started)
    asked = worker.asked
    await eventually(lambda: worker.asked > asked or not worker.lanes.news.is_set())

    worker.places = 2
    worker.lanes.news.set()

    await eventually(lambda: len(worker.started) == 2)


async def test_an_idle_intake_asks_about_five_times_a_second(worker: Worker) -> None:
    """It does so where no bell rings, and once in 20 ms just after it has found something."""
    worker.desk.redis.config_resetstat()
    worker.begin()
    await eventually(lambda: worker.pops >= 8)  # the pause has grown
    asked, started = worker.pops, asyncio.get_running_loop().time()
    await eventually(lambda: worker.pops >= asked + 3)

    assert asyncio.get_running_loop().time() - started > 0.35


async def test_a_refusal_of_the_ledger_is_told_and_survived(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Something else in place of a lane's key must not end the process, and every other one of the fleet."""
    monkeypatch.setattr(fetcher, "REFUSED_S", 0.01)
    worker.desk.redis.set("responses:leases:batch", "mine")
    worker.desk.enqueue("a")
    worker.begin()
    await eventually(lambda: len(worker.heard.refusals) > 1)
    assert "WRONGTYPE" in str(worker.heard.refusals[0])

    worker.desk.redis.delete("responses:leases:batch")

    await eventually(lambda: worker.started)


async def test_what_a_pop_may_have_taken_is_known_while_it_arrives(worker: Worker) -> None:
    """So that its leases can be renewed: the reply may be on its way for longer than a lease."""
    asked, go_on = asyncio.Event(), asyncio.Event()
    pop = worker.desk.ledger.pop

    class Slow(Ledger):
        async def pop(self, *args: Any, **more: Any) -> Pop:
            popped = await pop(*args, **more)
            asked.set()
            await go_on.wait()
            return popped

    worker.desk.enqueue(*"abc")
    worker.intake.ledger = Slow(worker.desk.runner)  # pyright: ignore[reportAttributeAccessIssue]  # a ledger far away
    worker.begin()
    await asked.wait()
    held = {token.decode() for token in worker.desk.redis.hkeys("responses:inflight:interactive")}
    assert len(held) == 3
    assert held <= {token for _, token in worker.intake.arriving}
    go_on.set()
    await eventually(lambda: len(worker.started) == 3)


async def test_what_was_asked_for_before_leaving_is_still_started(worker: Worker) -> None:
    """A pop under way cannot be called back: dropped, what it took would wait for its lease to end."""
    blocked, release = asyncio.Event(), asyncio.Event()
    pop = worker.desk.ledger.pop

    class SlowLedger(Ledger):
        async def pop(self, *args: Any, **more: Any) -> Pop:
            popped = await pop(*args, **more)
            if popped.deliveries:
                blocked.set()
                await release.wait()
            return popped

    worker.intake.ledger = SlowLedger(worker.desk.runner)  # pyright: ignore[reportAttributeAccessIssue]  # the real one, with a slower reply
    worker.desk.enqueue(*(str(number) for number in range(BULK)))
    worker.begin()
    await blocked.wait()

    worker.task.cancel()
    await asyncio.sleep(0)
    assert worker.started == []
    release.set()
    with pytest.raises(asyncio.CancelledError):
        await worker.task

    assert len(worker.started) == BULK


async def test_leaving_does_not_wait_for_a_server_that_is_away(worker: Worker) -> None:
    """The second cancellation ends it."""
    forever = asyncio.Event()

    class SilentLedger(Ledger):
        async def pop(self, *_: Any, **__: Any) -> Pop:
            await forever.wait()
            return Pop([], frozenset())

    worker.intake.ledger = SilentLedger(worker.desk.runner)  # pyright: ignore[reportAttributeAccessIssue]  # one whose reply never comes
    worker.begin()
    await eventually(lambda: worker.asked)
    for _ in range(2):
        worker.task.cancel()
        await asyncio.wait([worker.task], timeout=0.02)

    assert worker.task.done()
