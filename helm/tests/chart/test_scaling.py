"""The pods that work gets: the rendered plan and formula, over a real Valkey that workers keep current."""

import asyncio
import re
from pathlib import Path
from typing import Any

import keda
import pytest
from charts import CHART, HELMS, MATRIX, Rendered, render
from support.heard import Heard
from support.polling import wait_until
from support.producer import Producer, body
from support.worker_process import Fleet

from worker.devtools.devstack import Simulator
from worker.operations.scaling import Plan, Scaler
from worker.storage.connection import RedisTarget
from worker.storage.scripts import ScriptRunner

# 600 requests a minute of 20 s each: 200 in flight, and a quarter to spare.
BUDGET = {"upstream": {"requestsPerMinute": 600, "p95Seconds": 20}, "workerDefaults": {"concurrency": 50}}
USEFUL = 250
LANES = ("interactive", "batch")


def scaled(group: str, values: dict[str, Any] | None = None) -> dict[str, Any]:
    return render(values=BUDGET if values is None else values).one("ScaledObject", group)


def plan_of(rendered: Rendered) -> str:
    return rendered.one("ConfigMap", "-scaling")["data"]["scaling.json"]


@pytest.fixture
def plan_file(tmp_path: Path) -> Path:
    file = tmp_path / "scaling.json"
    file.write_text(plan_of(render(values=BUDGET)), encoding="utf-8")
    return file


def count(redis_url: str, plan_file: Path) -> None:
    """The deed of one worker every few seconds."""

    async def once() -> None:
        runner = ScriptRunner(RedisTarget.parse(redis_url).async_client())
        await Scaler(runner, "default", plan_file, Heard()).step()
        await runner.aclose()

    asyncio.run(once())


def wanted(group: str, redis: Any, values: dict[str, Any] | None = None) -> int:
    document = scaled(group, values)
    return keda.replicas(document, keda.counts(document, redis))


def fill(redis: Any, lane: str, *, ready: int = 0, in_flight: int = 0, parked: int = 0, urgent: int = 0) -> None:
    """Puts so much into a lane's keys; what it is does not matter to those who count."""
    if ready:
        redis.rpush(f"responses.{lane}", *range(ready))
    if urgent:
        redis.rpush(f"responses.{lane}\x06\x163", *range(urgent))
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
    "priorities count": ({"batch": {"urgent": 60, "ready": 60}}, {"interactive": 1, "batch": 3}),
    "parked work keeps one pod to wake it": ({"batch": {"parked": 5_000}}, {"interactive": 1, "batch": 1}),
    "parked work adds nothing to work": (
        {"batch": {"parked": 5_000, "ready": 60}},
        {"interactive": 1, "batch": 2},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_pods_follow_work_up_to_the_budget(case: str, producer: Producer, redis_server: str, plan_file: Path) -> None:
    lanes, expected = CASES[case]
    for lane, amounts in lanes.items():
        fill(producer.redis, lane, **amounts)
    count(redis_server, plan_file)
    assert {lane: wanted(lane, producer.redis) for lane in LANES} == expected


def test_most_pods_are_what_the_budget_can_use() -> None:
    assert scaled("batch")["spec"]["maxReplicaCount"] == USEFUL / 50
    assert Plan.model_validate_json(plan_of(render(values=BUDGET))).useful == USEFUL


def many(teams: int, **scaling: int) -> dict[str, Any]:
    """Groups of two lanes each, beside the chart's own."""
    groups = {f"team-{n}": {"lanes": {f"t{n}-a": 2, f"t{n}-b": 1}, "autoscaling": scaling} for n in range(teams)}
    return BUDGET | {"workers": groups}


@pytest.mark.parametrize("major", HELMS)
def test_a_group_costs_one_trigger(major: str) -> None:
    """However many lanes there are and whoever shares the budget: any worker of the fleet counts for all groups."""
    rendered = render(values=many(20), major=major)
    triggers = [trigger for document in rendered.all("ScaledObject") for trigger in document["spec"]["triggers"]]

    keys = {trigger["metadata"]["listName"] for trigger in triggers}
    assert len(triggers) == len(keys) == 22
    assert {*Plan.model_validate_json(plan_of(rendered)).groups} == {key.rsplit(":", 1)[-1] for key in keys}


def test_a_new_group_replaces_no_pod_of_another() -> None:
    before, after = (render(values=many(teams)).one("Deployment", "interactive") for teams in (1, 2))
    assert before == after


def test_a_fleet_that_may_be_away_is_woken_by_its_lanes(producer: Producer) -> None:
    """Nobody counts there. One message of any priority starts one pod, which counts for all from then on."""
    asleep = many(1, minReplicas=0) | {"workerDefaults": {"autoscaling": {"minReplicas": 0}}}
    asleep["workers"] |= {"interactive": {"autoscaling": {"minReplicas": 0}}}
    assert wanted("team-0", producer.redis, asleep) == 0
    producer.redis.rpush("responses.t0-b\x06\x169", *range(500))
    assert wanted("team-0", producer.redis, asleep) == 1
    assert wanted("batch", producer.redis, asleep) == 0
    assert {document["spec"]["minReplicaCount"] for document in render(values=asleep).all("ScaledObject")} == {0}


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
    values = {"workerDefaults": {"concurrency": 50, "autoscaling": {"maxReplicas": 7}}}
    plan = Plan.model_validate_json(plan_of(render(values=values)))
    assert (plan.useful, plan.groups["batch"].most) == (0, 7)
    assert keda.replicas(scaled("batch", values), {"pods": 1e6}) == 7


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


def test_a_real_worker_counts_for_all_groups(
    fleet: Fleet, producer: Producer, gateway: Simulator, plan_file: Path
) -> None:
    """The places of requests that are put off, run and wait; of a lane that it does not serve, too."""

    def pods(batch: int, interactive: int) -> Any:
        return lambda: (wanted("batch", producer.redis), wanted("interactive", producer.redis)) == (batch, interactive)

    gateway.configure(latency_median_s=60.0)
    fleet.start(concurrency=4, lanes="batch=1", shutdown_grace="0s", scaling_file=str(plan_file))
    producer.enqueue({"body": body()}, lane="batch", countdown=3600)
    wait_until(pods(1, 1), within_s=20, what="one pod for a parked request")
    for _ in range(104):
        producer.ask(lane="batch")
    fill(producer.redis, "interactive", ready=60)
    wait_until(lambda: gateway.stats().in_flight == 4, what="four calls in flight")
    wait_until(pods(3, 2), within_s=20, what="three pods for 104 requests, two for the lane of another group")


def test_databases_and_targets_are_strings() -> None:
    """KEDA's metadata takes nothing else; numbers would be refused by the API server."""
    rendered = render(CHART / "ci" / "everything-values.yaml")
    for document in rendered.all("ScaledObject"):
        for trigger in document["spec"]["triggers"]:
            assert {type(value) for value in trigger["metadata"].values()} == {str}
            assert trigger["metadata"]["databaseIndex"] == "3"
