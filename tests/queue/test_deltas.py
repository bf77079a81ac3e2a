"""Token deltas reach a watcher in order, and the watcher always learns that it is over."""

import json
from typing import Any

import jsonschema
from support.polling import wait_until
from support.producer import Producer, body
from support.worker_process import Fleet

from api_contracts.schemas import DELTA_ENTRY
from worker.devtools.devstack import Simulator


def watched(producer: Producer, request_id: str) -> list[tuple[str, str, dict[str, Any]]]:
    key = f"responses:deltas:default:{request_id}"
    return [
        (entry_id.decode(), fields[b"type"].decode(), json.loads(fields[b"data"]))
        for entry_id, fields in producer.redis.xrange(key)
    ]


def test_deltas_arrive_in_order_and_end(fleet: Fleet, producer: Producer) -> None:
    """Joined, the deltas are the answer's text; the last entry says how it ended."""
    fleet.start()
    request_id = producer.enqueue({"body": body("Tell me a story, please.", stream=True)})

    result = producer.result(request_id)
    entries = watched(producer, request_id)

    text = "".join(data["delta"] for _, kind, data in entries if kind == "response.output_text.delta")
    assert text == result["response"]["output"][0]["content"][0]["text"]
    assert [entry_id for entry_id, _, _ in entries[:-1]] == [f"1-{n + 1}" for n in range(len(entries) - 1)]
    assert (entries[-1][1], entries[-1][2]) == ("finished", {"outcome": "completed"})
    assert producer.redis.pttl(f"responses:deltas:default:{request_id}") > 0


def test_a_retry_says_so_before_it_starts_over(fleet: Fleet, producer: Producer) -> None:
    """After a stream that was cut, `restarted` tells the watcher to forget what came so far."""
    fleet.start()
    request_id = producer.enqueue({"body": body("Once upon a time [[sim:cut*1]]", stream=True)})

    producer.result(request_id)
    entries = watched(producer, request_id)

    restarts = [(entry_id, data["attempt"]) for entry_id, kind, data in entries if kind == "restarted"]
    assert restarts == [("2-1", 2)]
    assert entries[-1][1] == "finished"


def test_every_entry_is_what_the_contract_says(fleet: Fleet, producer: Producer) -> None:
    """The AsyncAPI document describes entries for readers in other languages: events, restarts and the end."""
    fleet.start()
    request_id = producer.enqueue({"body": body("Once upon a time [[sim:cut*1]]", stream=True)})
    producer.result(request_id)

    entries = producer.redis.xrange(f"responses:deltas:default:{request_id}")

    for _, fields in entries:
        entry = {name.decode(): value.decode() for name, value in fields.items()}
        jsonschema.validate(entry, DELTA_ENTRY)
        assert isinstance(json.loads(entry["data"]), dict)
    assert {b"response.created", b"restarted", b"finished"} <= {fields[b"type"] for _, fields in entries}


def test_a_request_that_fails_at_once_ends_too(fleet: Fleet, producer: Producer) -> None:
    """Nobody watches for ever."""
    fleet.start(max_attempts=1)
    request_id = producer.enqueue({"body": body("[[sim:400]]", stream=True)})

    producer.result(request_id)

    assert [kind for _, kind, _ in watched(producer, request_id)] == ["finished"]


def test_cancel_key_ends_a_call_in_flight(fleet: Fleet, producer: Producer, gateway: Simulator) -> None:
    """Any language cancels by setting one key; the connection is closed within a second."""
    fleet.start()
    request_id = producer.ask("[[sim:slow=30]]")
    wait_until(lambda: len(gateway.calls()) == 1, what="a call in flight")

    producer.redis.set(f"responses:cancel:default:{request_id}", "1", ex=3600)
    result = producer.result(request_id, within_s=2)

    assert result["error"]["code"] == "cancelled"
    assert producer.leftovers() == {}
