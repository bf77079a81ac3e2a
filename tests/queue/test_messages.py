"""A message that is no request: everybody who can be named is answered, the rest is a dead letter."""

import base64
import json
from typing import Any

import pytest
from support.polling import wait_until
from support.producer import Producer, body
from support.worker_process import Fleet

from worker.queue.messages import Message, Unreadable, decode
from worker.queue.oversize import largest_message

MAX_BODY = 4 * 1024 * 1024


def celery_message(arguments: Any = None, **changes: Any) -> dict[str, Any]:
    """A message as Celery 5 writes it to Redis; `changes` replace parts, None removes them."""
    payload = [[{"body": body()}], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}]
    encoded = json.dumps(payload if arguments is None else arguments).encode()
    message: dict[str, Any] = {
        "body": base64.b64encode(encoded).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"lang": "py", "task": "responses.create", "id": "task-1", "eta": None, "expires": None},
        "properties": {"correlation_id": "task-1", "body_encoding": "base64", "priority": 0, "delivery_tag": "t"},
    }
    for part, change in changes.items():
        part = part.replace("_", "-")  # noqa: PLW2901  # keyword for a JSON name
        if change is None:
            del message[part]
        elif isinstance(change, dict) and isinstance(message[part], dict):
            message[part] |= change
        else:
            message[part] = change
    return message


def raw(message: Any) -> bytes:
    return json.dumps(message).encode()


def embedded(**embed: Any) -> Any:
    return [[{"body": body()}], {}, embed]


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


NO_ID: dict[str, Any] = {"headers": {"id": None}, "properties": {"correlation_id": None}}

ANSWERED: dict[str, tuple[bytes, str]] = {
    "truncated JSON": (raw(celery_message())[:-20], "message"),
    "bad UTF-8": (b'{"correlation_id": "task-1", "\xff": 1}', "message"),
    "headers without id": (raw(celery_message(headers={"id": None, "task": "x"})), "headers.task"),
    "no headers": (raw(celery_message(headers=None)), "headers"),
    "headers null": (raw(celery_message() | {"headers": None}), "headers"),
    "no task": (raw(celery_message(headers={"task": None})), "headers.task"),
    "task name a list": (raw(celery_message(headers={"task": ["responses.create"]})), "headers.task"),
    "unknown task": (raw(celery_message(headers={"task": "responses.delete"})), "headers.task"),
    "protocol 1": (
        raw(
            celery_message(headers=None)
            | {"body": b64(raw({"task": "responses.create", "id": "task-1", "args": [{"body": body()}], "kwargs": {}}))}
        ),
        "headers",
    ),
    "no content type": (raw(celery_message(content_type=None)), "content-type"),
    "pickle": (raw(celery_message(content_type="application/x-python-serialize")), "content-type"),
    "compressed": (raw(celery_message(headers={"compression": "application/x-gzip"})), "headers.compression"),
    "no body": (raw(celery_message(body=None)), "body"),
    "body an object": (raw(celery_message() | {"body": {"a": 1}}), "body"),
    "body not base64": (raw(celery_message(body="%%%")), "body"),
    "body not JSON": (raw(celery_message(body=b64(b"not json"))), "body"),
    "body NaN": (raw(celery_message(body=b64(b'[[{"body":{"top_p":NaN}}],{},{}]'))), "body"),
    "lone surrogate": (raw(celery_message(body=b64(b'[[{"body":{"user":"\\ud800"}}],{},{}]'))), "body"),
    "deep nesting": (raw(celery_message(body=b64(b"[" * 100_000))), "body"),
    "nested past what can be written": (
        raw(celery_message([[{"body": body(tools=[{"a": json.loads("[" * 300 + "]" * 300)}])}], {}, {}])),
        "body",
    ),
    "body a pair": (raw(celery_message([[{}], {}])), "body"),
    "body a string": (raw(celery_message("text")), "body"),
    "no argument": (raw(celery_message([[], {}, {}])), "args"),
    "two arguments": (raw(celery_message([[{}, {}], {}, {}])), "args"),
    "unknown keyword": (raw(celery_message([[], {"request": {}}, {}])), "args"),
    "argument a string": (raw(celery_message([["hello"], {}, {}])), "envelope"),
    "argument null": (raw(celery_message([[None], {}, {}])), "envelope"),
    "chain": (raw(celery_message(embedded(chain=[{"task": "other"}]))), "embed"),
    "bad eta": (raw(celery_message(headers={"eta": "tomorrow"})), "headers.eta"),
    "eta a number": (raw(celery_message(headers={"eta": 5})), "headers.eta"),
    "bad expires": (raw(celery_message(headers={"expires": "soon"})), "headers.expires"),
    "10 MB": (raw(celery_message([[{"body": body("x" * 10_000_000)}], {}, {}])), "body"),
    "10 MB, not even parsed": (raw(celery_message([[{"body": body("x" * 10_000_000)}], {}, {}]))[:-9], "body"),
}

BURIED: dict[str, bytes] = {
    "empty": b"",
    "not JSON": b"hello",
    "binary": bytes(range(256)),
    "a number": b"17",
    "null": b"null",
    "a list": b"[1, 2]",
    "an empty object": b"{}",
    "no ids at all": raw(celery_message(headers={"id": None}, properties={"correlation_id": None})),
    "deep outer nesting": b"[" * 100_000,
}


@pytest.mark.parametrize(("message", "field"), ANSWERED.values(), ids=ANSWERED.keys())
def test_whoever_can_be_named_is_told_what_is_wrong(message: bytes, field: str) -> None:
    """The id is found, and the violation names the part of the message."""
    decoded = decode(message, max_body=MAX_BODY)

    assert isinstance(decoded, Message)
    assert decoded.terms is None
    assert decoded.request_id == "task-1"
    assert decoded.violations[0].field == field


@pytest.mark.parametrize("message", BURIED.values(), ids=BURIED.keys())
def test_what_nobody_can_be_answered_for_is_unreadable(message: bytes) -> None:
    """No id anywhere: a dead letter, with a reason."""
    assert isinstance(decode(message, max_body=MAX_BODY), Unreadable)


def test_a_good_message_is_a_request() -> None:
    """By position or by keyword, base64 or plain."""
    plain: dict[str, Any] = celery_message() | {
        "body": json.dumps([[], {"envelope": {"body": body(), "request_id": "r"}}, {}])
    }
    del plain["properties"]["body_encoding"]

    positional, keyword = decode(raw(celery_message()), max_body=MAX_BODY), decode(raw(plain), max_body=MAX_BODY)

    assert isinstance(positional, Message)
    assert isinstance(keyword, Message)
    assert positional.terms is not None
    assert keyword.terms is not None
    assert (positional.request_id, keyword.request_id) == ("task-1", "r")
    assert positional.body == json.dumps(body(), separators=(",", ":")).encode()


def test_type_markers_inside_tools_stay_data() -> None:
    """Kombu's decoder would turn `__type__` into an object; we pass it on as it was written."""
    tools = [{"__type__": "datetime", "__value__": "2026-01-01T00:00:00"}]

    decoded = decode(raw(celery_message([[{"body": body(tools=tools)}], {}, {}])), max_body=MAX_BODY)

    assert isinstance(decoded, Message)
    assert json.loads(decoded.body)["tools"] == tools


def test_the_same_body_has_the_same_fingerprint_in_any_order() -> None:
    """Key order is how a producer's language writes JSON, not what it asks."""
    first = celery_message([[{"body": {"model": "gpt-5.4-mini", "input": []}}], {}, {}])
    second = celery_message([[{"body": {"input": [], "model": "gpt-5.4-mini"}}], {}, {}])

    one, two = decode(raw(first), max_body=MAX_BODY), decode(raw(second), max_body=MAX_BODY)

    assert isinstance(one, Message)
    assert isinstance(two, Message)
    assert one.fingerprint == two.fingerprint


@pytest.mark.parametrize(
    ("headers", "envelope", "trace_id"),
    [
        ({"sentry-trace": "a" * 32 + "-" + "b" * 16 + "-1"}, {}, "a" * 32),
        ({}, {"traceparent": f"00-{'c' * 32}-{'d' * 16}-01"}, "c" * 32),
    ],
    ids=["Celery's sentry-trace", "W3C"],
)
def test_the_callers_trace_is_joined(headers: dict[str, Any], envelope: dict[str, Any], trace_id: str) -> None:
    """Sentry's ids and W3C's have the same sizes."""
    message = celery_message([[{"body": body()} | envelope], {}, {}], headers=headers)

    decoded = decode(raw(message), max_body=MAX_BODY)

    assert isinstance(decoded, Message)
    assert decoded.trace_id == trace_id


def test_no_raw_message_stops_the_worker(fleet: Fleet, producer: Producer) -> None:
    """Every case above pushed onto a lane: each is accounted for, and the next good request is answered at once."""
    worker = fleet.start()
    for n, (message, _) in enumerate(ANSWERED.values()):
        producer.push_raw(message.replace(b"task-1", f"task-{n}".encode()))
    for message in BURIED.values():
        producer.push_raw(message)

    results = producer.results(len(ANSWERED), within_s=30)
    good = producer.result(producer.ask(), within_s=2)
    undecodable = [name for name, (_, field) in ANSWERED.items() if field == "message"]
    over = [message for message, _ in ANSWERED.values() if len(message) > largest_message(MAX_BODY)]
    dead = len(BURIED) + len(undecodable) + len(over)
    wait_until(lambda: producer.redis.xlen("responses:dead") == dead, what="every dead letter")

    assert {result["request_id"] for result in results} >= {f"task-{n}" for n in range(len(ANSWERED))}
    codes = {result["error"]["code"] for result in results}
    assert codes == {"invalid_request", "request_too_large"}
    assert good["outcome"] == "completed"
    assert worker.process.poll() is None
    assert producer.leftovers() == {}
