"""Every kind of request gets exactly one result, the right one, and leaves nothing behind."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from support.polling import wait_until
from support.producer import Producer, body
from support.worker_process import Fleet

from worker.devtools.devstack import Simulator

EACH = 3
GOOD = 100

FAULTY = {
    # marker: outcome, code, attempts
    "400": ("failed", "invalid_request", 1),
    "500": ("failed", "upstream_error", 2),
    "html-502": ("failed", "upstream_error", 2),
    "broken-json": ("failed", "invalid_response", 2),
    "schema-break": ("failed", "invalid_response", 2),
    "empty-200": ("failed", "invalid_response", 2),
    "failed-200": ("failed", "upstream_error", 2),
    "incomplete": ("incomplete", "incomplete_max_tokens", 1),
    "incomplete-filter": ("incomplete", "content_rejected", 1),
}

INVALID: dict[str, tuple[Any, str]] = {
    "invalid-body": ({"body": {"model": "gpt-5.4-mini", "input": []}}, "body.input"),
    "unknown-key": ({"body": body(temprature=1)}, "body.temprature"),
    "not-an-object": ("just a string", "envelope"),
}


def test_every_kind_of_request_gets_its_one_result(fleet: Fleet, producer: Producer) -> None:
    """A mix of everything, at once: one result per request, each with the right outcome and code."""
    fleet.start(max_attempts=2)
    wanted: dict[str, tuple[str, str | None, int]] = {}

    for n in range(GOOD):
        wanted[producer.ask(f"Nummer {n}: Grüße 世界 \U0001f680")] = ("completed", None, 1)
    for marker, expected in FAULTY.items():
        for n in range(EACH):
            wanted[producer.ask(f"{n} [[sim:{marker}]]")] = expected
    for envelope, _ in INVALID.values():
        for _ in range(EACH):
            wanted[producer.enqueue(envelope)] = ("failed", "invalid_request", 0)
    past = (datetime.now(UTC) - timedelta(minutes=1)).isoformat()
    for _ in range(EACH):
        wanted[producer.ask(deadline=past)] = ("failed", "deadline_exceeded", 0)
        wanted[producer.app.send_task("responses.create", queue="responses.batch").id] = (
            "failed",
            "invalid_request",
            0,
        )

    results = producer.results(len(wanted), within_s=60)

    assert Counter(result["request_id"] for result in results) == Counter(wanted.keys())
    for result in results:
        code = result["error"]["code"] if result["error"] else None
        found = (result["outcome"], code, len(result["attempts"]))
        assert found == wanted[result["request_id"]], result
    assert producer.leftovers() == {}
    assert producer.redis.xlen("responses:dead") == 0


@pytest.mark.parametrize(("envelope", "field"), INVALID.values(), ids=INVALID.keys())
def test_a_violation_names_its_field(fleet: Fleet, producer: Producer, envelope: Any, field: str) -> None:
    """Bad input says where, and what would be right."""
    fleet.start()

    result = producer.result(producer.enqueue(envelope))

    (violation,) = result["error"]["violations"]
    assert violation["field"] == field
    assert "must" in violation["message"] or "known" in violation["message"]


def test_the_same_id_again(fleet: Fleet, producer: Producer, gateway: Simulator) -> None:
    """Same body: nothing new, or a copy for another stream; other body: a conflict; after a retryable failure: anew."""
    fleet.start(max_attempts=1)

    producer.enqueue({"body": body("first"), "request_id": "one"})
    producer.results(1)
    producer.enqueue({"body": body("first"), "request_id": "one"})
    producer.enqueue({"body": body("first"), "request_id": "one", "reply_to": "elsewhere"})
    producer.enqueue({"body": body("other"), "request_id": "one"})
    producer.enqueue({"body": body("[[sim:500*1]]"), "request_id": "two"})
    results = producer.results(3)
    producer.enqueue({"body": body("[[sim:500*1]]"), "request_id": "two"})
    results = producer.results(4)
    (copy,) = producer.results(1, stream="responses:results:elsewhere")

    outcomes = [
        (result["request_id"], result["outcome"], result["error"] and result["error"]["code"]) for result in results
    ]
    assert Counter(outcomes) == Counter(
        [
            ("one", "completed", None),
            ("one", "failed", "duplicate_conflict"),
            ("two", "failed", "upstream_error"),
            ("two", "completed", None),
        ]
    )
    assert copy == results[0]
    assert len(gateway.calls()) == 3
    assert producer.leftovers() == {}


def test_killed_workers_requests_are_answered_by_the_next(fleet: Fleet, producer: Producer, gateway: Simulator) -> None:
    """Kill -9 with 20 calls in flight: a new worker answers all 20, once each, within 25 s."""
    first = fleet.start()
    ids = {producer.ask(f"{n} [[sim:slow=3]]") for n in range(20)}
    wait_until(lambda: len(gateway.calls()) == 20)

    first.kill()
    fleet.start()
    results = producer.results(20, within_s=25)

    assert Counter(result["request_id"] for result in results) == Counter(ids)
    for result in results:
        assert [attempt["outcome"] for attempt in result["attempts"]] == ["interrupted", "completed"]
        assert result["attempts"][0]["maybe_billed"] is True
    assert producer.leftovers() == {}
