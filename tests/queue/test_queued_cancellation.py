"""A request deep in a lane that stands still is cancelled all the same, once, and before the lane moves again."""

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.command_line import called
from support.examples import examples
from support.heard import Heard
from support.ledger_parts import eventually
from support.producer import Producer, body
from support.worker_process import Fleet

from api_contracts.celery_messages import encode
from api_contracts.client import ResponsesClient
from api_contracts.outgoing import strict_json
from worker.devtools.devstack import Simulator
from worker.queue.claims import Delivery
from worker.queue.leases import LEASE_MS
from worker.queue.ledger import Ledger
from worker.queue.queued_cancellation import PAGE, QUEUED_CANCELLATION, TAKE, QueuedCancellation
from worker.storage import keys
from worker.storage.commands import Row
from worker.storage.connection import RedisTarget
from worker.storage.scripts import ScriptRunner, call_blocking

LANE = "responses.interactive"


def test_the_last_of_a_paused_lane_is_cancelled_at_once(
    fleet: Fleet, producer: Producer, gateway: Simulator, redis_url: str
) -> None:
    """While workers hold two of two hundred; what was cancelled is never called, and all are answered once."""
    called("pause", WORKER_REDIS_URL=redis_url)
    fleet.start(concurrency=2)
    fleet.start(concurrency=2)
    tags = [str(number) for number in range(200)]
    for tag in tags:
        producer.ask(f"[[id:{tag}]]", request_id=tag)

    producer.redis.set("responses:cancel:default:199", 1, ex=86400)
    assert producer.result("199", within_s=30)["error"]["code"] == "cancelled"
    assert len(producer.entries()) == 1
    called("resume", WORKER_REDIS_URL=redis_url)

    assert Counter(result["request_id"] for result in producer.results(200, within_s=60)) == Counter(tags)
    assert sorted(call.tag or "" for call in gateway.calls()) == sorted(tags[:199])
    assert producer.leftovers() == {}


def test_a_later_request_under_a_cancelled_id_is_not_haunted(fleet: Fleet, valkey: redis.Redis, redis_url: str) -> None:
    """Once the id itself is forgotten, nothing else remembers it."""
    with ResponsesClient(redis_url) as client:
        ticket = client.enqueue(body(), request_id="one")
        client.cancel("one")
        fleet.start()
        cancelled = client.wait(ticket, timeout_s=10)
        valkey.delete("responses:request:default:one")  # as an hour after its deadline

        again = client.wait(client.enqueue(body(), request_id="one"), timeout_s=10)

    assert cancelled.error is not None
    assert cancelled.error.code == "cancelled"
    assert again.outcome == "completed"


class Swept:
    """A sweep by itself, over a lane of one's own."""

    def __init__(self, redis: Any, url: str) -> None:
        self.redis = redis
        self.taken: list[bytes] = []
        self.runner = ScriptRunner(RedisTarget.parse(url).async_client())
        self.sweep = QueuedCancellation(
            self.runner, Ledger(self.runner), lambda: ["interactive"], 2**20, lambda: True, self._start, Heard()
        )

    def push(self, count: int) -> list[bytes]:
        messages = [
            encode(strict_json({"body": body()}), task_id=f"t-{number}", lane="interactive") for number in range(count)
        ]
        self.redis.lpush(LANE, *messages)
        return messages

    def cancel(self, *task_ids: str) -> None:
        self.redis.mset({f"responses:cancel::{task_id}": 1 for task_id in task_ids})

    async def until(self, check: Callable[[], Any]) -> None:
        sweeping = asyncio.create_task(self.sweep.run())
        await eventually(check)
        sweeping.cancel()
        await asyncio.wait([sweeping])
        await self.runner.aclose()

    def _start(self, delivery: Delivery) -> None:
        self.taken.append(delivery.message)


@pytest.fixture
def swept(valkey: redis.Redis, redis_url: str) -> Swept:
    return Swept(valkey, redis_url)


async def test_every_page_is_looked_through(swept: Swept) -> None:
    """By Celery task id, among what nobody can read, each taken once under a lease; the rest stays where it is."""
    swept.redis.lpush(LANE, b"no message")
    messages = swept.push(2 * PAGE + 100)
    chosen = [0, 1, PAGE - 1, PAGE, PAGE + 1, 2 * PAGE + 99]
    swept.cancel(*(f"t-{number}" for number in chosen))

    await swept.until(lambda: len(swept.taken) >= len(chosen))

    assert swept.taken == [messages[number] for number in chosen]
    left = [message for message in messages if message not in swept.taken]
    assert swept.redis.lrange(LANE, 0, -1)[::-1] == [b"no message", *left]
    leased = swept.redis.zrange("responses:leases:interactive", 0, -1)
    assert sorted(leased) == sorted(swept.redis.hkeys("responses:inflight:interactive"))
    assert len(leased) == len(chosen)


async def test_what_a_lane_that_moves_holds_is_left_to_its_consumers(swept: Swept) -> None:
    """Two lists, one of which moves between any two looks."""
    swept.push(10)
    swept.cancel("t-5")
    still, numbers = f"{LANE}\x06\x169", itertools.count()
    swept.redis.lpush(still, encode(strict_json({"body": body()}), task_id="t-5", lane="interactive", priority=9))

    def moved() -> bool:
        swept.redis.rpop(LANE)
        swept.redis.rpush(LANE, f"another: {next(numbers)}")
        return bool(swept.taken)

    await swept.until(moved)

    assert len(swept.taken) == 1
    assert swept.redis.llen(LANE) == 10
    assert swept.redis.llen(still) == 0


@pytest.fixture
def without_lset(valkey: redis.Redis, redis_url: str) -> Iterator[str]:
    """A user with the rights that the release before asked for."""
    client: Any = valkey
    client.execute_command("ACL", "SETUSER", "older", "on", "nopass", "~*", "&*", "+@all", "-lset")
    yield redis_url.replace("//", "//older:any@", 1)
    client.execute_command("ACL", "DELUSER", "older")


@given(data=st.data())
@settings(max_examples=examples(30), suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@pytest.mark.parametrize("rights", ["all", "older"])
def test_what_was_found_is_taken_wherever_it_is_by_now(
    valkey: Any, redis_url: str, without_lset: str, rights: str, data: st.DataObject
) -> None:
    """Lanes move between the look and the taking; equal messages stand in one lane; each is taken once, or is gone."""
    valkey.flushall()
    waiting = [b"%d" % number for number in data.draw(st.lists(st.integers(0, 30), min_size=1, max_size=40))]
    places = data.draw(st.lists(st.integers(1, len(waiting)), unique=True, max_size=20))
    found = [(place, waiting[place - 1]) for place in places]
    moved = data.draw(st.integers(0, 3))
    valkey.lpush(LANE, *waiting)
    for _ in range(min(moved, len(waiting))):
        valkey.rpop(LANE)
    left = waiting[moved:]
    rows = [Row({}, {"token": f"x.interactive.{n}", "place": at, "message": raw}) for n, (at, raw) in enumerate(found)]
    names = keys.lane("interactive") | keys.waiting_list(LANE)

    user: Any = redis.Redis
    with user.from_url(redis_url if rights == "all" else without_lset) as client:
        taken = call_blocking(client, QUEUED_CANCELLATION, TAKE, names, rows, lease_ms=LEASE_MS)
        again = call_blocking(client, QUEUED_CANCELLATION, TAKE, names, rows, lease_ms=LEASE_MS)

    expected = Counter(left) & Counter(raw for _, raw in found)
    messages = {f"x.interactive.{n}": raw for n, (_, raw) in enumerate(found)}
    assert Counter(messages[token] for token in taken) == expected
    assert taken <= again
    assert Counter(valkey.lrange(LANE, 0, -1)) == Counter(left) - Counter(messages[token] for token in again)
    assert valkey.hlen("responses:inflight:interactive") == valkey.zcard("responses:leases:interactive") == len(again)


async def test_what_still_stands_where_it_was_found_is_taken_in_one_walk(swept: Swept) -> None:
    """Redis walks through a list to take something out of it; to find a place it skips most of the list."""
    messages = swept.push(2 * PAGE)
    swept.cancel(*(f"t-{number}" for number in range(PAGE, PAGE + 20)))
    swept.redis.config_resetstat()

    await swept.until(lambda: len(swept.taken) >= 20)

    assert swept.taken == messages[PAGE : PAGE + 20]
    stats = swept.redis.info("commandstats")
    assert (stats["cmdstat_lset"]["calls"], stats["cmdstat_lrem"]["calls"]) == (20, 1)
