"""Redis finds in the text of a message what may be cancelled: every way to write an id, and none of the others."""

import base64
import json
import random
from typing import Any, Final

import pytest
import redis
from support.producer import body

from api_contracts.queues import cancel_key
from worker.queue.queued_cancellation import PAGES, QUEUED_CANCELLATION
from worker.storage import keys
from worker.storage.commands import Row
from worker.storage.scripts import call_blocking

LIST: Final = "responses.interactive"
ROWS: Final = [Row(keys.waiting_list(LIST), {})]


def page(client: Any, count: int = 500) -> list[bytes]:
    found = call_blocking(client, QUEUED_CANCELLATION, PAGES, {}, ROWS, interval_ms=0, count=count)
    return [message for _, message in found[0][1]] if found else []


def searched(client: Any, *messages: bytes) -> list[bytes]:
    """The marks that are found in a list of these."""
    client.delete(LIST, keys.waiting_list(LIST)["sweeper"])
    client.lpush(LIST, *messages)
    page(client)  # the first look only notes who is next
    return page(client)


def written(rng: random.Random, envelope: dict[str, Any], *, task_id: Any) -> bytes:
    """As some producer would: names in any order, with and without spaces, in base64 or not."""
    names = list(envelope)
    rng.shuffle(names)
    spaces: Any = rng.choice([(",", ":"), (", ", ": ")])
    arguments = json.dumps([[{name: envelope[name] for name in names}], {}, {}], separators=spaces).encode()
    encoded = rng.random() < 0.7
    parts = [
        ("body", base64.b64encode(arguments).decode() if encoded else arguments.decode()),
        ("content-type", "application/json"),
        ("headers", {"task": "responses.create", "id": task_id, "argsrepr": "x" * rng.randrange(900)}),
        (
            "properties",
            {"correlation_id": task_id, "delivery_tag": "t", **({"body_encoding": "base64"} if encoded else {})},
        ),
    ]
    return json.dumps(dict(parts), separators=spaces).encode()


@pytest.mark.parametrize("seed", range(60))
def test_an_id_is_found_wherever_it_is_written(valkey: redis.Redis, seed: int) -> None:
    rng = random.Random(seed)
    tenant, request_id = rng.choice(["default", "acme", "a:b"]), f"r-{rng.randrange(10**9)}"
    envelope = {"body": body("x" * rng.randrange(3_000)), "request_id": request_id, "tenant": tenant}
    envelope |= {"metadata": {"request_id": "decoy", "tenant": "decoy"}} if rng.random() < 0.5 else {}
    message = written(rng, envelope, task_id=rng.choice(["task-1", 17]))
    other = written(rng, {**envelope, "request_id": "other"}, task_id="task-2")

    assert searched(valkey, other, message) == []
    valkey.set(cancel_key(tenant, request_id), 1)
    assert searched(valkey, other, message) == [message]


@pytest.mark.parametrize(
    "task_id", ["task-1", 17, "order/17", 1.5, {"__type__": "uuid", "__value__": {"hex": "0" * 32}}]
)
def test_a_task_is_found_by_its_id_however_that_is_written(valkey: redis.Redis, task_id: Any) -> None:
    message = written(random.Random(1), {"body": body()}, task_id=task_id)
    plain = isinstance(task_id, int | float) or task_id == "task-1"

    assert searched(valkey, message) == ([] if plain else [message])
    valkey.set(cancel_key("", str(task_id)), 1)
    assert searched(valkey, message) == [message]


def test_a_prompt_that_speaks_of_ids_hides_none(valkey: redis.Redis) -> None:
    """Escaped, it has the names as well; what is found by mistake is decided after decoding."""
    prompt = json.dumps({"request_id": "other", "tenant": "x"}) * 50
    message = written(random.Random(3), {"body": body(prompt), "request_id": "mine"}, task_id="t")
    valkey.set(cancel_key("default", "mine"), 1)

    assert searched(valkey, message) == [message]


def test_the_bytes_follow_the_cancellations_and_not_the_lane(valkey: redis.Redis) -> None:
    """Fifty bodies of a megabyte each, one of them cancelled."""
    rng = random.Random(1)
    messages = [
        written(rng, {"body": body("x" * 1_000_000), "request_id": f"r{number}"}, task_id=f"t{number}")
        for number in range(50)
    ]
    valkey.set(cancel_key("default", "r25"), 1)
    sent = _sent(valkey)
    searched(valkey, *messages)

    found = [message for _ in range(60) for message in page(valkey)]

    assert set(found) == {messages[25]}
    assert _sent(valkey) - sent < 1.5 * len(messages[0]) * len(found) + 50_000


def test_a_deep_lane_does_not_make_redis_busy(valkey: redis.Redis) -> None:
    """A page of 500 in a lane of 50,000, wherever it is."""
    rng = random.Random(1)
    some = [written(rng, {"body": body("x" * 500), "request_id": f"r{n}"}, task_id=f"t{n}") for n in range(1_000)]
    for _ in range(50):
        valkey.lpush(LIST, *some)
    page(valkey)
    began = _busy_s(valkey)
    for _ in range(100):
        assert page(valkey) == []

    assert (_busy_s(valkey) - began) / 100 < 0.05, "a tenth of the interval"


def _sent(client: Any) -> int:
    return int(client.info("stats")["total_net_output_bytes"])


def _busy_s(client: Any) -> float:
    """CPU of its main thread: other processes that want the same cores do not count."""
    used = client.info("cpu")
    return used["used_cpu_user_main_thread"] + used["used_cpu_sys_main_thread"]
