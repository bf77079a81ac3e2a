"""One request's misfortune is not the fleet's truth: real workers, and a gateway that has something against a few."""

import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import redis
from support.admission_parts import QUOTA
from support.polling import wait_until
from support.producer import Producer, body
from support.worker_process import Fleet

from worker.devtools.devstack import Simulator

PER_SECOND = 20
OWN_TROUBLES = {
    "401": ("authentication_failed", 4),
    "429=4": ("rate_limited", 8),
    "too-dear": ("quota_exhausted", 1),
    "prepaid": ("quota_exhausted", 1),
    "flex-429": ("upstream_overloaded", 2),
}
"""Of one request alone: what the gateway makes of each of its calls, its answer, and the calls it may make."""


def soon(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


def by_tag(gateway: Simulator) -> Counter[str]:
    return Counter(call.tag or "" for call in gateway.calls())


def span_s(gateway: Simulator, tags: set[str]) -> float:
    """From the first call of all to the last one of these."""
    calls = gateway.calls()
    return max(call.at_s for call in calls if call.tag in tags) - calls[0].at_s


def ask_tagged(producer: Producer, count: int, marker: str = "", **envelope: Any) -> dict[str, str]:
    """Request id and tag of each."""
    tags = [f"{envelope.get('tenant', '')}-{number}" for number in range(count)]
    return {producer.ask(f"{marker} [[id:{tag}]]", **envelope): tag for tag in tags}


def test_requests_with_troubles_of_their_own_hold_up_nobody(
    fleet: Fleet, producer: Producer, gateway: Simulator
) -> None:
    """They come first, and each is answered with the code of its own trouble within the calls that it may make."""
    for _ in range(2):
        fleet.start(requests_per_minute=60 * PER_SECOND)
    culprits = {
        producer.ask(f"[[sim:{trouble}]] [[id:{trouble}]]", tenant="acme", max_attempts=2, deadline=soon(7)): trouble
        for trouble in OWN_TROUBLES
    }
    good = ask_tagged(producer, 60, tenant="acme") | ask_tagged(producer, 20, tenant="birch")

    results = {result["request_id"]: result for result in producer.results(len(culprits) + len(good))}

    assert {results[one]["outcome"] for one in good} == {"completed"}
    assert span_s(gateway, {*good.values()}) <= 1.5 * (len(good) + len(culprits)) / PER_SECOND
    calls = by_tag(gateway)
    for request_id, trouble in culprits.items():
        code, allowed = OWN_TROUBLES[trouble]
        assert results[request_id]["error"]["code"] == code, trouble
        assert 1 <= calls[trouble] <= allowed, trouble
    assert producer.leftovers() == {}


def test_a_refusal_that_passes_costs_nobody_an_answer(fleet: Fleet, producer: Producer, gateway: Simulator) -> None:
    """Not even callers whose stamps are older than their patience: nothing is confirmed, so it does not run."""
    fleet.start(requests_per_minute=60 * PER_SECOND, patience="*=2s")
    old = soon(-45)
    asked = [producer.ask("[[sim:401*1]]", enqueued_at=old), *ask_tagged(producer, 30, enqueued_at=old)]

    results = producer.results(len(asked))

    assert {result["outcome"] for result in results} == {"completed"}
    assert Counter(call.status for call in gateway.calls())[401] == 1


def test_the_first_output_of_a_probe_lets_all_others_call(
    fleet: Fleet, producer: Producer, gateway: Simulator, valkey: redis.Redis
) -> None:
    """Its whole answer takes long, and so would the wait for it."""
    gateway.configure(fault_rates={"500": 1.0})
    fleet.start(requests_per_minute=1200, max_in_flight=5)
    for number in range(40):
        producer.enqueue({"body": body(f"{number}", stream=True)})
    wait_until(lambda: valkey.hget(QUOTA, "gate"), what="a shut gate")
    gateway.configure(fault_rates={}, latency_median_s=8.0)

    wait_until(lambda: not valkey.hget(QUOTA, "gate"), within_s=15, what="an open gate")

    assert not producer.entries()
    assert gateway.stats().by_status.get("200", 0) == 0


def test_a_tenant_whose_prompts_always_fail_fails_alone(
    fleet: Fleet, producer: Producer, gateway: Simulator, valkey: redis.Redis
) -> None:
    poison = ask_tagged(producer, 8, "[[sim:500]]", tenant="acme", max_attempts=2)
    good = ask_tagged(producer, 50, tenant="birch") | ask_tagged(producer, 10, tenant="cedar")
    fleet.start(requests_per_minute=60 * PER_SECOND)

    results = {result["request_id"]: result for result in producer.results(len(poison) + len(good))}

    assert {results[one]["outcome"] for one in good} == {"completed"}
    assert {results[one]["error"]["code"] for one in poison} == {"upstream_error"}
    assert {by_tag(gateway)[tag] for tag in poison.values()} == {2}
    assert span_s(gateway, {*good.values()}) <= 1.5 * (len(poison) + len(good)) / PER_SECOND
    assert valkey.hget(QUOTA, "gate") is None


def test_a_tenant_whose_time_is_too_short_times_out_alone(fleet: Fleet, producer: Producer, gateway: Simulator) -> None:
    """Its own clock ends its calls: that says nothing of the gateway."""
    gateway.configure(latency_median_s=0.7)
    hasty = ask_tagged(producer, 12, tenant="acme", timeout=0.3, max_attempts=5)
    good = ask_tagged(producer, 40, tenant="birch")
    fleet.start(requests_per_minute=60 * PER_SECOND)

    results = {result["request_id"]: result for result in producer.results(len(hasty) + len(good))}

    assert {results[one]["outcome"] for one in good} == {"completed"}
    assert {results[one]["error"]["code"] for one in hasty} == {"upstream_timeout"}
    assert {by_tag(gateway)[tag] for tag in hasty.values()} == {2}, "a call that may be billed is made twice at most"
    assert span_s(gateway, {*good.values()}) <= 1.5 * (2 * len(hasty) + len(good)) / PER_SECOND


def test_a_request_that_may_call_once_calls_once_whatever_it_meets(
    fleet: Fleet, producer: Producer, gateway: Simulator, valkey: redis.Redis
) -> None:
    """A probe as well: each such call may be billed."""
    gateway.configure(fault_rates={"524": 1.0})
    asked = ask_tagged(producer, 27, lane="batch", max_attempts=1)
    fleet.start(lanes="batch=1", requests_per_minute=1200, max_in_flight=3)
    wait_until(lambda: valkey.hget(QUOTA, "gate") == b"breaker_open", what="an open breaker")
    gateway.configure(fault_rates={})

    results = producer.results(len(asked))

    assert {*by_tag(gateway).values()} == {1}
    outcomes = Counter((result["error"] or {"code": result["outcome"]})["code"] for result in results)
    assert outcomes.keys() == {"upstream_timeout", "completed"}


def test_twice_too_much_costs_the_late_and_not_everybody(fleet: Fleet, producer: Producer, gateway: Simulator) -> None:
    """Requests come twice as fast as the rate allows, and none may wait long."""
    gateway.configure(latency_median_s=0.4)
    fleet.start(requests_per_minute=600)
    began = time.monotonic()
    asked: dict[str, str] = {}
    for number in range(100):
        wait_until(lambda due=number / 20: time.monotonic() - began >= due)
        tag = f"t{number}"
        asked[producer.ask(f"[[id:{tag}]]", deadline=soon(2.5))] = tag

    results = producer.results(len(asked))
    took_s = time.monotonic() - began

    done = {asked[result["request_id"]] for result in results if result["outcome"] == "completed"}
    late = [result for result in results if result["outcome"] != "completed"]
    assert len(done) >= 0.85 * 10 * 5
    assert took_s < 5 + 2.5 + 2
    assert len(by_tag(gateway).keys() - done) <= 0.05 * len(done)
    assert {result["error"]["code"] for result in late} == {"deadline_exceeded"}
