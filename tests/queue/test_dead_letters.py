"""Dead letters come back to their lanes, whole and once, or go for good; by the thousand as well."""

import json
from datetime import timedelta
from typing import Any

import pytest
import redis
from support.command_line import called
from support.dead_letters import bury, celery_message
from support.polling import wait_until
from support.producer import Producer, body
from support.worker_process import Fleet

from worker.devtools.devstack import Simulator
from worker.operations.dead_letters import DEAD_LETTERS, LETTERS, DeadLetters, Replay, Selection
from worker.storage import keys
from worker.storage.scripts import call_blocking


@pytest.fixture
def letters(valkey: redis.Redis) -> DeadLetters:
    return DeadLetters(valkey)


def ids(found: Any) -> list[str]:
    return [letter.entry_id for letter in found]


def test_a_replayed_poison_runs_anew_and_is_answered(fleet: Fleet, producer: Producer, valkey: redis.Redis) -> None:
    """Same id, first attempt, no crashes behind it: what a worker buried is answered once its cause is gone."""
    message = celery_message(producer)
    key = "responses:request:default:order-1"
    valkey.hset(key, mapping={"state": "running", "token": "", "lane": "interactive", "crashes": 3, "failures": 0})
    valkey.hset(key, mapping={"enqueued_at": 1, "enqueued_at_source": "worker", "claimed_at": 1, "throttle_ms": 0})
    valkey.hset(
        key,
        mapping={"deadline": 2**42, "attempt:1": json.dumps({"number": 1, "outcome": "started", "duration_ms": None})},
    )
    valkey.lpush("responses.interactive", message)
    fleet.start()

    assert producer.result("order-1")["error"]["code"] == "internal_error"
    (letter,) = DeadLetters(valkey).find(Selection())
    assert (letter.reason, letter.tenant, letter.request_id) == ("poison", "default", "order-1")

    assert DeadLetters(valkey).replay(letter.entry_id) is Replay.REPLAYED

    wait_until(lambda: len(producer.entries()) == 2, what="the answer of the replay")
    again = producer.entries()[1]
    assert (again["request_id"], again["outcome"]) == ("order-1", "completed")
    assert [attempt["number"] for attempt in again["attempts"]] == [1]
    assert producer.redis.hget(key, "crashes") == b"0"
    assert DeadLetters(valkey).count() == 0


def test_a_replay_may_give_new_time(fleet: Fleet, producer: Producer, letters: DeadLetters) -> None:
    """A letter is mostly older than its deadline when somebody looks at it; its id stays known, for its body alone."""
    message = celery_message(producer, deadline="2026-01-01T00:00:00Z")
    late, given = (bury(producer.redis, request_id="order-1", tenant="default", message=message) for _ in range(2))
    fleet.start()

    letters.replay(late)
    assert producer.result("order-1")["error"]["code"] == "deadline_exceeded"
    assert letters.replay(given, within=timedelta(minutes=1)) is Replay.REPLAYED
    wait_until(lambda: len(producer.entries()) == 2, what="the answer of the replay")
    producer.enqueue({"body": body("another"), "request_id": "order-1"})
    wait_until(lambda: len(producer.entries()) == 3, what="the answer to another body")

    assert [entry["outcome"] for entry in producer.entries()] == ["failed", "completed", "failed"]
    assert producer.entries()[2]["error"]["code"] == "duplicate_conflict"


def test_what_could_not_be_read_is_replayed_as_it_is(
    fleet: Fleet, producer: Producer, letters: DeadLetters, gateway: Simulator
) -> None:
    """Without an id there is nothing to reset; the same bytes reach a worker again, which buries them again."""
    worker = fleet.start()
    producer.push_raw(b"\xff no id")
    wait_until(letters.count, what="a dead letter")
    (first,) = letters.find(Selection())

    assert letters.replay(first.entry_id) is Replay.REPLAYED

    wait_until(lambda: len(worker.events("request.finished")) == 2, what="a second look at it")
    (second,) = letters.find(Selection())
    assert second.entry_id != first.entry_id
    assert letters.content(second.entry_id) == b"\xff no id"
    assert gateway.calls() == []


def test_replay_puts_the_message_behind_what_waits(valkey: redis.Redis, letters: DeadLetters) -> None:
    """A message that killed a worker must not stand before everybody's work: workers take from the right."""
    valkey.lpush("responses.interactive", b"waits")
    entry_id = bury(valkey, message=b"died")

    letters.replay(entry_id)

    assert valkey.lrange("responses.interactive", 0, -1) == [b"died", b"waits"]


@pytest.mark.parametrize(
    ("priority", "suffix"), [(None, ""), (0, ""), (2, ""), (3, "\x06\x163"), (7, "\x06\x166"), (9, "\x06\x169")]
)
def test_replay_keeps_celerys_priority(
    producer: Producer, letters: DeadLetters, priority: int | None, suffix: str
) -> None:
    """The message goes where Celery itself had put it, byte for byte."""
    message = celery_message(producer, priority=priority)
    entry_id = bury(producer.redis, message=message)

    letters.replay(entry_id)

    assert producer.redis.lrange(f"responses.interactive{suffix}", 0, -1) == [message]


@pytest.mark.parametrize(
    "message",
    [b'{"properties": 3}', b'{"properties": {"priority": "high"}}', b'{"properties": {"priority": null}}', b"[]"],
)
def test_replay_survives_properties_of_any_shape(valkey: redis.Redis, letters: DeadLetters, message: bytes) -> None:
    letters.replay(bury(valkey, message=message))

    assert valkey.lrange("responses.interactive", 0, -1) == [message]


def test_a_second_replay_finds_nothing(valkey: redis.Redis, letters: DeadLetters) -> None:
    """A reader that lost the reply may ask again: the message is there once."""
    entry_id = bury(valkey)

    assert [letters.replay(entry_id) for _ in range(2)] == [Replay.REPLAYED, Replay.GONE]
    assert valkey.llen("responses.interactive") == 1


@pytest.mark.parametrize(
    ("state", "replay"),
    [
        ("queued", Replay.UNDER_WAY),
        ("running", Replay.UNDER_WAY),
        ("parked", Replay.UNDER_WAY),
        ("completed", Replay.ANSWERED),
        ("incomplete", Replay.ANSWERED),
    ],
)
def test_an_id_that_was_enqueued_again_is_left_alone(
    valkey: redis.Redis, letters: DeadLetters, state: str, replay: Replay
) -> None:
    """The letter stays: its message would be dropped as a duplicate, or would forget an answer that was paid for."""
    valkey.hset("responses:request:a%3Ab:order-1", mapping={"state": state, "result": "kept"})
    entry_id = bury(valkey, tenant="a:b", request_id="order-1")

    assert letters.replay(entry_id) is replay

    assert valkey.llen("responses.interactive") == 0
    assert valkey.hget("responses:request:a%3Ab:order-1", "result") == b"kept"
    assert letters.count() == 1


def test_a_failed_id_is_reset_in_the_same_step(valkey: redis.Redis, letters: DeadLetters) -> None:
    """Its token deltas as well: those of the next run begin anew."""
    valkey.hset("responses:request:a%3Ab:order-1", mapping={"state": "failed", "crashes": 3})
    valkey.xadd("responses:deltas:a%3Ab:order-1", {"type": "finished"})

    letters.replay(bury(valkey, tenant="a:b", request_id="order-1"))

    assert valkey.exists("responses:request:a%3Ab:order-1", "responses:deltas:a%3Ab:order-1") == 0


def test_nothing_moves_while_a_key_of_another_type_is_in_the_way(valkey: redis.Redis, letters: DeadLetters) -> None:
    """Of the request, or of the lane: the letter is still there when it has been removed."""
    valkey.set("responses:request:default:order-1", "not ours")
    blocked = bury(valkey, tenant="default", request_id="order-1")
    valkey.set("responses.batch", "not ours")
    valkey.hset("responses:request:default:order-2", "state", "failed")
    wrong_lane = bury(valkey, lane="batch", tenant="default", request_id="order-2")

    assert letters.replay(blocked) is Replay.BLOCKED
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        letters.replay(wrong_lane)

    assert letters.count() == 2
    assert valkey.hget("responses:request:default:order-2", "state") == b"failed"


def test_an_entry_that_no_worker_wrote_is_kept(valkey: Any, letters: DeadLetters) -> None:
    entry_id = valkey.xadd("responses:dead", {"note": "by hand"})

    assert letters.replay(entry_id.decode()) is Replay.NO_LANE
    assert letters.count() == 1


def test_selections_combine(valkey: Any, letters: DeadLetters) -> None:
    """By lane, any part of the reason in any case, tenant, and age on Redis' clock."""
    seconds, _ = valkey.time()
    hours_ago = {hours: bury(valkey, f"{(seconds - hours * 3600) * 1000}-0", tenant=f"t{hours}") for hours in (9, 5, 2)}
    batch = bury(valkey, lane="batch", reason="not a JSON object", tenant="t5")

    def found(**selection: Any) -> list[str]:
        return ids(letters.find(Selection(**selection)))

    assert found() == [batch, hours_ago[2], hours_ago[5], hours_ago[9]]
    assert found(lane="batch") == found(reason="json") == [batch]
    assert found(tenant="t5") == [batch, hours_ago[5]]
    assert found(tenant="t5", lane="interactive") == [hours_ago[5]]
    assert found(older_than=timedelta(hours=4)) == [hours_ago[5], hours_ago[9]]
    assert found(older_than=timedelta(hours=4), newer_than=timedelta(hours=6)) == [hours_ago[5]]


def test_thousands_are_listed_replayed_and_dropped(valkey: Any, letters: DeadLetters, redis_url: str) -> None:
    """More than a page, some of them larger than a page may be: each exactly once."""
    with valkey.pipeline(transaction=False) as batch:
        for n in range(3000):
            message = b"x" * 5_000_000 if n in (7, 8, 1500) else b"m%d" % n
            bury(_Later(batch), request_id=f"r{n}", tenant="default", message=message)
        batch.execute()

    listed = list(letters.find(Selection()))
    replayed = called("dead", "replay", "--all", "--reason", "poison", "--yes", WORKER_REDIS_URL=redis_url)

    assert [letter.request_id for letter in listed] == [f"r{n}" for n in range(2999, -1, -1)]
    assert (replayed.code, replayed.out) == (0, "3000 replayed, 0 not there any more\n")
    assert letters.count() == 0
    assert valkey.llen("responses.interactive") == 3000
    assert valkey.rpop("responses.interactive") == b"m0", "the first that died comes first"
    assert valkey.lpop("responses.interactive") == b"m2999"


def test_a_page_is_bounded_by_what_it_reads(valkey: Any) -> None:
    """Messages may have some MiB each; a script that read hundreds would take the server's memory."""
    for _ in range(4):
        bury(valkey, message=b"x" * 5_000_000)

    cursor, page = call_blocking(valkey, DEAD_LETTERS, LETTERS, keys.FLEET, newest="+", oldest="-", limit=500)

    assert len(page) == 2
    assert cursor == f"({page[1].entry_id}"


class _Later:
    """XADD through a pipeline, whose replies come later."""

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline

    def xadd(self, *arguments: Any, **options: Any) -> bytes:
        self._pipeline.xadd(*arguments, **options)
        return b""
