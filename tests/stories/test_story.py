"""The whole job, as a caller sees it."""

import json
from typing import Any

import redis
from support.producer import Producer, body
from support.worker_process import Fleet

from worker.devtools.devstack import Simulator


def test_a_queued_request_becomes_one_published_result(fleet: Fleet, producer: Producer, gateway: Simulator) -> None:
    """A plain Celery message goes in, the gateway's own answer comes out, and nothing stays behind."""
    fleet.start()

    task_id = producer.enqueue({"body": body("Grüße, 世界!"), "metadata": {"order": "17"}, "tenant": "acme"})
    result = producer.result(task_id)

    assert result["outcome"] == "completed"
    assert result["error"] is None
    assert result["response"]["output"][0]["content"][0]["text"] == "Echo: Grüße, 世界!"
    assert result["metadata"] == {"order": "17"}
    assert result["tenant"] == "acme"
    assert [attempt["outcome"] for attempt in result["attempts"]] == ["completed"]
    assert len(gateway.calls()) == 1
    assert producer.leftovers() == {}


def test_the_result_is_also_kept_under_the_request_id(fleet: Fleet, producer: Producer, valkey: redis.Redis) -> None:
    """A caller that waits for one id reads one hash."""
    fleet.start()

    producer.ask(request_id="order-17", tenant="acme")
    producer.result("order-17")
    kept: Any = valkey.hgetall("responses:request:acme:order-17")

    assert kept[b"state"] == b"completed"
    assert json.loads(kept[b"result"])["request_id"] == "order-17"
