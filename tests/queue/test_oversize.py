"""Messages that are too large: they never leave Redis, their senders are answered, and nothing is lost unsaid."""

import base64
import json
import random
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.ledger_parts import HOUR_MS, Desk, claim_of
from support.links import SlowLink
from support.polling import wait_until
from support.producer import Producer
from support.worker_process import Fleet

from worker.devtools.devstack import EmbeddedValkey, Simulator
from worker.queue.claims import Lease, Published
from worker.queue.identity import recover
from worker.queue.messages import Message, decode
from worker.queue.oversize import EDGE, KEPT_WHOLE, MARK, largest_message, size_of, uncut

MAX_BODY: Final = 4 * 1024 * 1024
LARGEST: Final = largest_message(MAX_BODY)
MIB: Final = 1024 * 1024


def oversized(size: int, *, encoding: str = "base64", at_end: bool = False) -> bytes:
    """A Celery message of about `size` bytes; its envelope's ids come before the input, or after it."""
    ids = {"request_id": "large-1", "tenant": "acme", "reply_to": "answers", "metadata": {"order": "17"}}
    padding = {"body": {"model": "gpt-5.4-mini", "input": "x" * (size * 3 // 4 if encoding == "base64" else size)}}
    envelope = padding | ids if at_end else ids | padding
    text = json.dumps([[envelope], {}, {}]).encode()
    coded = base64.b64encode(text).decode() if encoding == "base64" else text.decode()
    properties = {"correlation_id": "task-1"} | ({"body_encoding": "base64"} if encoding == "base64" else {})
    message = {"body": coded, "headers": {"task": "responses.create", "id": "task-1"}, "properties": properties}
    return json.dumps(message | {"content-type": "application/json"}).encode()


async def popped(desk: Desk, message: bytes) -> Any:
    desk.redis.lpush("responses.interactive", message)
    (delivery,) = await desk.take()
    return delivery


@pytest.mark.parametrize("size", [LARGEST + 1, LARGEST + 2, LARGEST + 3, LARGEST + 4, KEPT_WHOLE, 2 * KEPT_WHOLE])
async def test_only_its_ends_leave_redis(desk: Desk, size: int) -> None:
    """The rest is a multiple of four bytes, so that base64 behind it still reads."""
    message = random.Random(size).randbytes(size)
    delivery = await popped(desk, message)

    found = uncut(delivery.message)
    assert found is not None
    ends, told = found
    assert told == size == size_of(delivery.message)
    assert ends[:EDGE] == message[:EDGE]
    assert message.endswith(ends[EDGE:])
    assert 2 * EDGE - 4 < len(ends) <= 2 * EDGE
    assert (size - len(ends)) % 4 == 0


async def test_what_is_not_too_large_is_delivered_whole(desk: Desk) -> None:
    message = b"x" * LARGEST

    assert (await popped(desk, message)).message == message


@pytest.mark.parametrize("encoding", ["base64", "none"])
@pytest.mark.parametrize("at_end", [False, True])
@pytest.mark.parametrize("extra", range(4))
async def test_its_sender_is_found(desk: Desk, encoding: str, at_end: bool, extra: int) -> None:  # noqa: FBT001  # a parameter of the test
    """Wherever the ids are, and however the message is aligned."""
    message = oversized(LARGEST + 100 + extra, encoding=encoding, at_end=at_end)
    delivery = await popped(desk, message)

    decoded = decode(delivery.message, max_body=MAX_BODY)

    assert isinstance(decoded, Message)
    assert decoded.too_large
    assert decoded.dead_letter_reason == f"{len(message)} bytes are too large for WORKER_MAX_BODY = {MAX_BODY}"
    assert decoded.identity == recover(message)
    assert (decoded.request_id, decoded.tenant, decoded.reply_to) == ("large-1", "acme", "answers")
    assert decoded.metadata == {"order": "17"}


@pytest.mark.parametrize(("size", "whole"), [(KEPT_WHOLE, True), (KEPT_WHOLE + 1, False)])
async def test_the_dead_letter_keeps_what_redis_can_bear(desk: Desk, size: int, whole: bool) -> None:  # noqa: FBT001  # a parameter of the test
    """Up to a bound all of it; above, the ends and the size."""
    message = b"x" * size
    lease = await desk.ledger.claim(await popped(desk, message), claim_of())
    assert isinstance(lease, Lease)
    failed = Published("failed", retryable=False, streamed=False, result=b"{}")
    await desk.ledger.complete(lease, failed, kept_ms=HOUR_MS, dead_letter_reason="too large")

    ((_, letter),) = desk.redis.xrange("responses:dead")
    assert (letter[b"message"] == message) is whole
    assert size_of(letter[b"message"]) == size
    assert desk.places() == {}


@pytest.mark.parametrize("size", [LARGEST + 1, KEPT_WHOLE + 1])
async def test_it_is_the_same_again_when_it_was_handed_back(desk: Desk, size: int) -> None:
    """A worker died holding it; the next one gets the same ends and the same size."""
    first = await popped(desk, b"x" * size)
    again = await desk.runner.repeat("pop")
    await desk.give_back(first)
    (second,) = await desk.take()

    assert first.message == again.deliveries[0].message == second.message


@given(st.binary(max_size=200))
def test_no_other_message_is_taken_for_a_cut_one(message: bytes) -> None:
    if not message.startswith(MARK.encode()):
        assert uncut(message) is None
        assert size_of(message) == len(message)


@pytest.mark.parametrize("size", [9 * MIB, 60 * MIB])
def test_one_costs_a_worker_nothing(
    valkey_server: EmbeddedValkey, redis_url: str, gateway: Simulator, producer: Producer, size: int
) -> None:
    """Answered under its id and kept as a dead letter, over a link on which it would take a minute."""
    assert redis_url == valkey_server.url
    with SlowLink(valkey_server.port, mbit_per_s=8, round_trip_ms=5) as link, Fleet(link.url, gateway.url) as fleet:
        worker = fleet.start()
        before = link.carried["down"]
        producer.push_raw(oversized(size))
        stream = "responses:results:answers"
        wait_until(lambda: producer.redis.xlen(stream) == 1, within_s=15, what="its answer")
        ((_, entry),) = producer.redis.xrange(stream)
        answer = json.loads(entry[b"result"])
        assert producer.result(producer.ask())["outcome"] == "completed"
        carried = link.carried["down"] - before
        (ended,) = [line for line in worker.events("request.finished") if line.get("request_id") == "large-1"]

    assert (answer["request_id"], answer["error"]["code"]) == ("large-1", "request_too_large")
    assert carried < MIB
    assert ended["input_bytes"] > size
    ((_, letter),) = producer.redis.xrange("responses:dead")
    assert letter[b"request_id"] == b"large-1"
    assert b"too large for WORKER_MAX_BODY" in letter[b"reason"]
    assert producer.leftovers() == {}
