"""How many pods work gets: the rendered formula over counts from a real Valkey."""

import re
from typing import Any

import keda
import pytest
from charts import CHART, MATRIX, render
from support.polling import wait_until
from support.producer import Producer, body
from support.worker_process import Fleet

from worker.devtools.devstack import Simulator

# 600 requests a minute of 20 s each: 200 in flight, and a quarter to spare.
BUDGET = {"upstream": {"requestsPerMinute": 600, "p95Seconds": 20}, "workerDefaults": {"concurrency": 50}}
USEFUL = 250
LANES = ("interactive", "batch")


def scaled(group: str, values: dict[str, Any] | None = None) -> dict[str, Any]:
    return render(values=BUDGET if values is None else values).one("ScaledObject", group)


def fill(redis: Any, lane: str, *, ready: int = 0, in_flight: int = 0, parked: int = 0) -> None:
    """Puts so much into a lane's keys; what it is does not matter to those who count."""
    if ready:
        redis.rpush(f"responses.{lane}", *range(ready))
    if in_flight:
        redis.hset(f"responses:inflight:{lane}", mapping=dict.fromkeys(range(in_flight), ""))
    if parked:
        redis.zadd(f"responses:delayed:{lane}", {str(n): n for n in range(parked)})


Case = tuple[dict[str, dict[str, int]], dict[str, int]]
CASES: dict[str, Case] = {
    "nothing to do": ({}, {"interactive": 1, "batch": 0}),
    "one request wakes a sleeping group": ({"batch": {"ready": 1}}, {"interactive": 1, "batch": 1}),
    "as many pods as the work fills": ({"interactive": {"ready": 120}}, {"interactive": 3, "batch": 0}),
    "busy pods stay though nothing waits": ({"interactive": {"in_flight": 180}}, {"interactive": 4, "batch": 0}),
    "no pod beyond the budget": ({"interactive": {"ready": 90_000}}, {"interactive": 5, "batch": 0}),
    "an idle neighbour's budget may be used": ({"batch": {"ready": 90_000}}, {"interactive": 1, "batch": 5}),
    "what the neighbour uses may not": (
        {"batch": {"ready": 90_000}, "interactive": {"in_flight": 100}},
        {"interactive": 2, "batch": 3},
    ),
    "two floods share by weight": (
        {"batch": {"ready": 90_000}, "interactive": {"ready": 90_000}},
        {"interactive": 4, "batch": 1},
    ),
    "parked work keeps one pod to wake it": ({"batch": {"parked": 5_000}}, {"interactive": 1, "batch": 1}),
    "parked work adds nothing to work": (
        {"batch": {"parked": 5_000, "ready": 60}},
        {"interactive": 1, "batch": 2},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_pods_follow_work_up_to_the_budget(case: str, producer: Producer) -> None:
    lanes, expected = CASES[case]
    for lane, amounts in lanes.items():
        fill(producer.redis, lane, **amounts)
    found = {lane: keda.replicas(scaled(lane), keda.counts(scaled(lane), producer.redis)) for lane in LANES}
    assert found == expected


def test_most_pods_are_what_the_budget_can_use() -> None:
    """However much waits, the whole fleet has at most one pod more than the budget fills."""
    assert scaled("batch")["spec"]["maxReplicaCount"] == USEFUL / 50
    flooded = {trigger["name"]: 1e6 for group in LANES for trigger in scaled(group)["spec"]["triggers"]}
    assert sum(keda.replicas(scaled(group), flooded) for group in LANES) <= USEFUL / 50 + 1


def test_the_tightest_limit_decides() -> None:
    """Requests, tokens or calls in flight, whichever ends first."""

    def most(**upstream: float) -> int:
        return scaled("batch", {"upstream": upstream, "workerDefaults": {"concurrency": 50}})["spec"]["maxReplicaCount"]

    assert most(requestsPerMinute=600) == 5
    assert most(requestsPerMinute=600, tokensPerMinute=300_000, tokensPerRequest=1000) == 3
    assert most(requestsPerMinute=600, tokensPerMinute=300_000, tokensPerRequest=1000, maxInFlight=60) == 2
    assert most(requestsPerMinute=600, p95Seconds=40) == 10
    assert most(requestsPerMinute=480) == 4  # exactly, without a fifth pod for rounding


def test_without_a_budget_only_the_most_pods_bound() -> None:
    unknown = scaled("batch", {"workerDefaults": {"concurrency": 50, "autoscaling": {"maxReplicas": 7}}})
    flooded = {trigger["name"]: 1e6 for trigger in unknown["spec"]["triggers"]}
    assert keda.replicas(unknown, flooded) == 7


@pytest.mark.parametrize("values", MATRIX, ids=lambda path: path.stem)
def test_keda_can_compile_the_formula(values: Any) -> None:
    """Every name in it is a trigger, every trigger has a name of its own, and -1 for each of them is no accident.

    A whole number as target, because KEDA ignores the fallback where it cannot read it as one (pkg/fallback).
    """
    for document in render(values).all("ScaledObject"):
        names = [trigger["name"] for trigger in document["spec"]["triggers"]]
        assert len(set(names)) == len(names)
        assert all(re.fullmatch(r"[a-z]\w*", name) for name in names)
        keda.composite(document, dict.fromkeys(names, keda.ON_COMPILING))
        modifiers = document["spec"]["advanced"]["scalingModifiers"]
        used = set(re.findall(r"[a-z]\w*", modifiers["formula"])) - {"min", "max"}
        assert used == set(names)
        assert int(modifiers["target"]) > 0
        assert modifiers["metricType"] == "AverageValue"


@pytest.mark.parametrize("values", MATRIX, ids=lambda path: path.stem)
def test_an_outage_of_redis_sends_nobody_home(values: Any) -> None:
    """KEDA keeps what runs, and starts one pod where none does, so that work is found when Redis is back."""
    for document in render(values).all("ScaledObject"):
        fallback = document["spec"]["fallback"]
        assert fallback["behavior"] == "currentReplicasIfHigher"
        assert fallback["replicas"] >= max(1, document["spec"]["minReplicaCount"])


def test_scaling_in_is_slow_and_out_is_quick() -> None:
    behavior = scaled("batch")["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    assert behavior["scaleUp"]["stabilizationWindowSeconds"] == 0
    assert behavior["scaleDown"]["stabilizationWindowSeconds"] >= 300


def test_priorities_count(producer: Producer) -> None:
    """Celery keeps each priority in a list of its own, in kombu's spelling; a plain LLEN would not see them."""
    for priority in (0, 3, 6, 9):
        for _ in range(priority + 10):
            producer.enqueue({}, lane="batch", priority=priority)
    counted = keda.counts(scaled("batch"), producer.redis)
    assert [counted[f"ready{n}_batch"] for n in ("", "3", "6", "9")] == [10, 13, 16, 19]
    assert keda.composite(scaled("batch"), counted) == 58


def test_a_real_worker_is_seen(fleet: Fleet, producer: Producer, gateway: Simulator) -> None:
    """Where requests really are while they are put off, run and wait, the triggers find each of them once."""

    def counted(*triggers: str) -> float:
        counts = keda.counts(scaled("batch"), producer.redis)
        return sum(counts[f"{trigger}_batch"] for trigger in triggers)

    gateway.configure(latency_median_s=60.0)
    fleet.start(concurrency=4, lanes="batch=1", shutdown_grace="0s")
    producer.enqueue({"body": body()}, lane="batch", countdown=3600)
    wait_until(lambda: counted("parked") == 1, what="a parked request")
    assert keda.replicas(scaled("batch"), keda.counts(scaled("batch"), producer.redis)) == 1
    for _ in range(24):
        producer.ask(lane="batch")
    wait_until(lambda: gateway.stats().in_flight == 4, what="four calls in flight")
    wait_until(lambda: counted("ready", "inflight") == 24, what="24 requests counted")
    assert counted("inflight") >= 4
    assert counted("parked") == 1


def test_groups_do_not_share_a_budget_that_is_unknown() -> None:
    """Then nothing is asked about lanes that are not its own: half the questions to Redis."""
    keys = [trigger["metadata"]["listName"] for trigger in scaled("batch", {})["spec"]["triggers"]]
    assert len(keys) == 6
    assert all("batch" in key for key in keys)


def test_databases_and_targets_are_strings() -> None:
    """KEDA's metadata takes nothing else; numbers would be refused by the API server."""
    rendered = render(CHART / "ci" / "everything-values.yaml")
    for document in rendered.all("ScaledObject"):
        for trigger in document["spec"]["triggers"]:
            assert {type(value) for value in trigger["metadata"].values()} == {str}
            assert trigger["metadata"]["databaseIndex"] == "3"
