"""Producers that hurt nobody but themselves: real workers, and a bystander that is answered meanwhile."""

import itertools
import json
from datetime import UTC, datetime, timedelta
from typing import Any

from support.producer import Producer, body
from support.worker_process import Fleet

from api_contracts.celery_messages import encode
from api_contracts.client import ResponsesClient
from api_contracts.limits import MAX_DEPTH, MAX_KEYS, MAX_VALUES
from worker.devtools.devstack import Simulator


def nested(levels: int) -> Any:
    value: Any = "end"
    for _ in range(levels):
        value = {"a": [value]}
    return value


COMPLEX: dict[str, dict[str, Any]] = {
    "deep tools": {"body": body(tools=[nested(MAX_DEPTH // 2 + 7)])},
    "deep extras": {"body": body(extra_body={"new": nested(MAX_DEPTH // 2 + 3)})},
    "many values": {"body": body(tools=[{"x": [{}] * (MAX_VALUES + 13)}])},
    "many keys": {"body": {**body(), **{f"key{number}": number for number in range(MAX_KEYS + 5)}}},
}


def test_what_is_too_complex_is_refused_before_it_is_decoded(
    fleet: Fleet, producer: Producer, gateway: Simulator
) -> None:
    """Each is answered by name and costs no call; a bystander is answered."""
    worker = fleet.start()
    for number, (name, envelope) in enumerate(COMPLEX.items()):
        document = json.dumps({"request_id": f"complex-{number}", **envelope}).encode()
        producer.push_raw(encode(document, task_id=name.replace(" ", "-"), lane="interactive"))
    bystander = producer.ask()

    results = {result["request_id"]: result for result in producer.results(len(COMPLEX) + 1)}

    assert results.pop(bystander)["outcome"] == "completed"
    assert {result["error"]["code"] for result in results.values()} == {"invalid_request"}
    assert len(gateway.calls()) == 1
    assert worker.process.poll() is None


def test_times_far_from_now_are_refused(fleet: Fleet, producer: Producer) -> None:
    """And what is published keeps to the contract, so that its reader goes on."""
    fleet.start()
    live = (datetime.now(UTC) + timedelta(minutes=5)).isoformat()
    asked: set[str] = set()
    for name, years in itertools.product(("enqueued_at", "deadline"), (-1900, -1, 1, 7000)):
        far = min(max(datetime.now(UTC).year + years, 1), 9999)
        asked.add(producer.ask(**{"deadline": live, name: f"{far:04d}-06-01T00:00:00Z"}))
    with ResponsesClient(redis=producer.redis) as client:
        read = list(client.results("readers", idle_s=3))

    assert {result.request_id for result in read} == asked
    assert {result.error.code if result.error else "" for result in read} <= {"invalid_request", "deadline_exceeded"}


def test_a_tenant_that_is_no_name_touches_nobody(fleet: Fleet, producer: Producer) -> None:
    """Its sender is answered under the task's id; the id it named still belongs to whom it belonged."""
    fleet.start()
    tasks = [
        producer.ask(tenant=tenant, request_id="order-44")
        for tenant in ("Bad Tenant!", "\x1b[2J", "", "a:b/c", "x" * 65)
    ]
    refused = [producer.result(task_id) for task_id in tasks]
    producer.ask(request_id="order-44")

    assert [result["error"]["code"] for result in refused] == ["invalid_request"] * len(tasks)
    assert producer.result("order-44")["outcome"] == "completed"


def test_an_entry_that_nobody_can_read_stops_no_reader(fleet: Fleet, producer: Producer) -> None:
    fleet.start()
    for entry in ({"result": "[" * 500}, {"x": "y"}, {"result": b"\xff\xfe"}, {"result": "{}"}):
        producer.redis.xadd("responses:results", entry)
    request_id = producer.ask()

    with ResponsesClient(redis=producer.redis) as client:
        read = [result.request_id for result in client.results("readers", idle_s=3)]

    assert read == [request_id]
    assert producer.redis.xlen("responses:unreadable") == 4
