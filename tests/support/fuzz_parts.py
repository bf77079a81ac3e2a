"""Malformed messages as foreign producers might push them: seeded, each with an id of its own."""

import base64
import json
import random
from collections.abc import Callable, Iterator
from typing import Any, Final

from support.producer import body

HUGE: Final = 20 * 1024 * 1024
JUNK: Final[list[Any]] = [None, True, 0, -1, 1e308, "", "\u0000", "x" * 300, "a b", [], [[]], {}, {"__type__": "x"}]
"""No string in it can be anybody's id: two messages of one id are one request, and could not be counted."""


Fuzz = Callable[[random.Random], bytes]


def parts(rng: random.Random) -> dict[str, Any]:
    """A good message, in parts."""
    task_id = f"{rng.getrandbits(64):016x}"
    payload = [[{"body": body("Grüße 世界")}], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}]
    return {
        "body": base64.b64encode(json.dumps(payload).encode()).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"lang": "py", "task": "responses.create", "id": task_id, "eta": None, "expires": None},
        "properties": {"correlation_id": task_id, "body_encoding": "base64", "priority": 0, "delivery_tag": task_id},
    }


def good(rng: random.Random) -> bytes:
    return json.dumps(parts(rng)).encode()


def with_payload(rng: random.Random, payload: Any) -> bytes:
    encoded = base64.b64encode(json.dumps(payload).encode()).decode()
    return json.dumps(parts(rng) | {"body": encoded}).encode()


def broken_base64(rng: random.Random) -> bytes:
    message = parts(rng)
    at = rng.randrange(len(message["body"]))
    return json.dumps(
        message | {"body": message["body"][:at] + rng.choice("%= é\n") + message["body"][at + 1 :]}
    ).encode()


def wrong_headers(rng: random.Random) -> bytes:
    message = parts(rng)
    part = message[rng.choice(["headers", "properties"])]
    part[rng.choice(list(part))] = rng.choice(JUNK)
    return json.dumps(message).encode()


def wrong_part(rng: random.Random) -> bytes:
    message = parts(rng)
    message[rng.choice(list(message))] = rng.choice(JUNK)
    return json.dumps(message).encode()


def wrong_envelope(rng: random.Random) -> bytes:
    envelope: dict[str, Any] = {"body": body()}
    where = rng.choice([envelope, envelope["body"], envelope["body"]["input"][0]])
    where[rng.choice([*where, "deadline", "timeout", "tenant", "tools", "reply_to", "metadata"])] = rng.choice(JUNK)
    return with_payload(rng, [[envelope], {}, {}])


def wrong_arguments(rng: random.Random) -> bytes:
    wrong: list[Any] = [*JUNK, [JUNK, {}, {}], [[], {"envelope": {}, "x": 1}, {}], [[{}], {}, JUNK]]
    return with_payload(rng, rng.choice(wrong))


def wrong_protocol(rng: random.Random) -> bytes:
    """Celery's message protocol 1: everything in the body, no headers."""
    message = parts(rng)
    task: dict[str, Any] = {"task": "responses.create", "id": message["headers"]["id"], "args": [{"body": body()}]}
    return json.dumps(message | {"headers": {}, "body": base64.b64encode(json.dumps(task).encode()).decode()}).encode()


def cut_off(rng: random.Random) -> bytes:
    message = good(rng)
    return message[: rng.randrange(len(message))]


def flipped(rng: random.Random) -> bytes:
    message = bytearray(good(rng))
    for _ in range(rng.randint(1, 8)):
        message[rng.randrange(len(message))] = rng.randrange(256)
    return bytes(message)


def binary(rng: random.Random) -> bytes:
    return rng.randbytes(rng.choice([1, 10, 1000, 100_000]))


def other_json(rng: random.Random) -> bytes:
    return rng.choice([json.dumps(rng.choice(JUNK)).encode(), b"[" * 100_000, b'{"a":' * 5_000 + b"1" + b"}" * 5_000])


KINDS: Final[list[Fuzz]] = [
    good,
    broken_base64,
    wrong_headers,
    wrong_part,
    wrong_envelope,
    wrong_arguments,
    wrong_protocol,
    cut_off,
    flipped,
    binary,
    other_json,
]


def fuzzed(seed: int, count: int) -> Iterator[bytes]:
    """So many messages, one of them of 20 MB."""
    rng = random.Random(seed)
    yield with_payload(rng, [[{"body": body("x" * HUGE)}], {}, {}])
    for _ in range(count - 1):
        yield rng.choice(KINDS)(rng)
