"""Real workers and a gateway that fails for a while: nothing is lost, little is called, it heals by itself."""

from typing import Any

import pytest
import redis
from support.admission_parts import QUOTA
from support.polling import wait_until
from support.producer import Producer
from support.worker_process import Fleet

from worker.devtools.devstack import Simulator

KEY = "sk-test-key"


def gate(valkey: redis.Redis) -> bytes:
    shut: Any = valkey.hget(QUOTA, "gate")
    return shut or b""


@pytest.mark.parametrize("prompt", ["prompt {}", "the same"])
def test_a_dead_key_costs_few_calls_and_no_attempt(
    fleet: Fleet, producer: Producer, gateway: Simulator, valkey: redis.Redis, prompt: str
) -> None:
    """Revoked, then restored: requests that may not fail even once are all answered, whether they differ or not."""
    gateway.configure(revoked_keys=[KEY])
    fleet.start(lanes="batch=1", probe_interval="1s", requests_per_minute=2400, max_in_flight=5)
    for number in range(40):
        producer.ask(prompt.format(number), lane="batch", max_attempts=1)
    wait_until(lambda: valkey.hget(QUOTA, "confirmed_at") not in {None, b"0"}, what="a probe that confirms it")
    gateway.configure(revoked_keys=[])

    results = producer.results(40)

    assert {result["outcome"] for result in results} == {"completed"}
    assert producer.leftovers(["batch"]) == {}
    assert sum(call.status == 401 for call in gateway.calls()) <= 5 + 8


def test_a_broken_gateway_opens_the_breaker_and_no_request_fails_for_it(
    fleet: Fleet, producer: Producer, gateway: Simulator, valkey: redis.Redis
) -> None:
    gateway.configure(fault_rates={"503": 1.0})
    for _ in range(2):
        fleet.start(lanes="batch=1", requests_per_minute=6000, max_in_flight=10)
    for number in range(200):
        producer.ask(f"prompt {number}", lane="batch", max_attempts=2)
    wait_until(lambda: gate(valkey) == b"breaker_open", what="an open breaker")
    gateway.configure(fault_rates={})

    results = producer.results(200)

    assert {result["outcome"] for result in results} == {"completed"}
    assert sum(call.status == 503 for call in gateway.calls()) <= 20 + 10
    assert producer.leftovers(["batch"]) == {}


def test_impatient_requests_are_answered_while_patient_ones_wait(
    fleet: Fleet, producer: Producer, gateway: Simulator, valkey: redis.Redis
) -> None:
    gateway.configure(revoked_keys=[KEY])
    fleet.start(patience="interactive=1s,batch=deadline", probe_interval="1s")
    patient = [producer.ask(f"prompt {number}", lane="batch") for number in range(3)]
    wait_until(lambda: gate(valkey), what="a shut gate")
    impatient = [producer.ask(f"prompt {number}") for number in range(3, 6)]

    answered = [producer.result(request_id) for request_id in impatient]
    assert {result["error"]["code"] for result in answered} == {"authentication_failed"}
    assert all(result["error"]["retryable"] for result in answered)
    assert len(producer.entries()) == 3

    gateway.configure(revoked_keys=[])
    assert {producer.result(request_id)["outcome"] for request_id in patient} == {"completed"}
