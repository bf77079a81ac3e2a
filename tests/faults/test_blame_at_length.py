"""Troubles of one request or one tenant, to their end: minutes of them beside others who must not feel it."""

from collections import Counter
from typing import Any

import pytest
import redis
from support.admission_parts import QUOTA
from support.producer import Producer
from support.worker_process import Fleet

from worker.devtools.devstack import Simulator

pytestmark = pytest.mark.timeout(600)  # eight refusals of its own, with their backoff, take six minutes

PER_SECOND = 20
GOOD = 300


def span_s(gateway: Simulator, prefix: str) -> float:
    """From the first call of all to the last one of these."""
    calls = gateway.calls()
    return max(call.at_s for call in calls if (call.tag or "").startswith(prefix)) - calls[0].at_s


def ask(producer: Producer, count: int, prefix: str, marker: str = "", **envelope: Any) -> set[str]:
    return {producer.ask(f"{marker} [[id:{prefix}-{number}]]", **envelope) for number in range(count)}


@pytest.mark.parametrize(
    ("marker", "code", "calls"),
    [
        ("401", "authentication_failed", 4),
        ("401-openai", "authentication_failed", 4),
        ("quota", "quota_exhausted", 4),
        ("exhausted-401", "quota_exhausted", 4),
        ("too-dear", "quota_exhausted", 1),
        ("flex-429", "upstream_overloaded", 3),
        ("429=4", "rate_limited", 8),
        ("429-empty", "rate_limited", 8),
        ("524", "upstream_timeout", 2),
        ("broken-json", "invalid_response", 2),
    ],
)
def test_a_trouble_of_its_own_ends_with_its_name(  # noqa: PLR0917  # fixtures, and a row of the table
    fleet: Fleet, producer: Producer, gateway: Simulator, marker: str, code: str, calls: int
) -> None:
    """It uses all the calls that it may make, and the others are done as if it were not there."""
    culprits = ask(producer, 1, "culprit", f"[[sim:{marker}]]", max_attempts=3)
    good = ask(producer, GOOD, "good")
    for _ in range(2):
        fleet.start(requests_per_minute=60 * PER_SECOND)

    results = {result["request_id"]: result for result in producer.results(GOOD + 1, within_s=500)}

    assert {results[one]["outcome"] for one in good} == {"completed"}
    assert span_s(gateway, "good") <= 1.5 * (GOOD + 1) / PER_SECOND
    assert [results[one]["error"]["code"] for one in culprits] == [code]
    assert len(gateway.calls("culprit-0")) == calls
    assert producer.leftovers() == {}


@pytest.mark.parametrize("share", [0.1, 0.3])
def test_poison_of_one_tenant_shuts_no_gate(
    fleet: Fleet, producer: Producer, gateway: Simulator, valkey: redis.Redis, share: float
) -> None:
    poison: set[str] = set()
    good: set[str] = set()
    for number in range(GOOD):
        if number < share * GOOD:
            poison.add(producer.ask(f"[[sim:500]] [[id:bad-{number}]]", tenant="acme", max_attempts=2))
        good.add(producer.ask(f"[[id:good-{number}]]", tenant=f"t{number % 7}"))
    for _ in range(2):
        fleet.start(requests_per_minute=60 * PER_SECOND)

    results = {result["request_id"]: result for result in producer.results(len(poison) + GOOD, within_s=180)}

    assert {results[one]["outcome"] for one in good} == {"completed"}
    assert {results[one]["error"]["code"] for one in poison} == {"upstream_error"}
    assert span_s(gateway, "good") <= 1.5 * (GOOD + 2 * len(poison)) / PER_SECOND
    assert Counter(call.tag for call in gateway.calls() if (call.tag or "").startswith("bad")).most_common(1)[0][1] == 2
    assert valkey.hget(QUOTA, "gate") is None
