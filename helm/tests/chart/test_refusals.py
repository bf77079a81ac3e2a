"""Wrong values stop the rendering, with a sentence that says what would be right."""

import json
from collections.abc import Iterator
from typing import Any, cast

import pytest
from charts import CHART, HELMS, OLDEST, RefusedError, render

KEDA_AND_HPA = {"autoscaling": {"keda": {"enabled": True}, "hpa": {"enabled": True}}}
HPA = {"autoscaling": {"keda": {"enabled": False}, "hpa": {"enabled": True}}}

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "keda and hpa": ({"workers": {"batch": KEDA_AND_HPA}}, "keda and hpa would fight over the replicas"),
    "replicas of a scaled group": ({"workers": {"batch": {"replicas": 2}}}, "the autoscaler decides them"),
    "grace below the request timeout": ({"shutdown": {"graceSeconds": 60}}, "would be paid for twice"),
    "more at least than at most": (
        {"workers": {"interactive": {"autoscaling": {"minReplicas": 5, "maxReplicas": 4}}}},
        "minReplicas 5 is above the 4 pods",
    ),
    "more at least than the budget": (
        {"upstream": {"requestsPerMinute": 60}, "workers": {"interactive": {"autoscaling": {"minReplicas": 2}}}},
        "minReplicas 2 is above the 1 pods",
    ),
    "a budget for too many pods": (
        {"upstream": {"requestsPerMinute": 60_000}, "workerDefaults": {"concurrency": 10}},
        "asks for 2500 pods of concurrency 10",
    ),
    "a lane in two groups": (
        {"workers": {"third": {"lanes": {"batch": 1}}}},
        "lane batch is served by workers.batch too",
    ),
    "lanes whose triggers would share a name": (
        {"workers": {"third": {"lanes": {"a-b": 1, "a_b": 1}}}},
        "lane a_b is served by workers.third too",
    ),
    "no lane": ({"workers": {"third": {}}}, "needs at least one lane"),
    "no group": ({"workers": {"interactive": None, "batch": None}}, "at least one group"),
    "two sources of the Redis URL": (
        {"redis": {"url": "redis://localhost", "existingSecret": "mine"}},
        "give one of them",
    ),
    "two sources of the key": ({"upstream": {"apiKey": "k", "existingSecret": "mine"}}, "give one of them"),
    "a Redis URL that KEDA cannot use": (
        {"redis": {"url": "sentinel://a:26379?master_name=m"}},
        "for Sentinel use redis.existingSecret",
    ),
    "metrics that nobody could read": (
        {"podMonitor": {"enabled": True}, "settings": {"WORKER_METRICS_FROM": "loopback"}},
        "Prometheus could read nothing",
    ),
    "both disruption budgets": (
        {"workers": {"batch": {"podDisruptionBudget": {"minAvailable": 1}}}},
        "exclude each other",
    ),
    "a misspelt key": ({"workers": {"batch": {"concurency": 5}}}, "concurency"),
    "a misspelt setting": ({"settings": {"WORKER_LOG_LEVL": "INFO"}}, "WORKER_LOG_LEVL"),
    "a setting that the chart decides": ({"settings": {"WORKER_LANES": "batch=1"}}, "WORKER_LANES"),
    "a duration that is none": ({"settings": {"WORKER_MAX_PAUSE": "ten minutes"}}, "WORKER_MAX_PAUSE"),
    "a quantity that is none": (
        {"workerDefaults": {"resources": {"limits": {"memory": "512MiB"}}}},
        "memory",
    ),
    "a name that is no label": ({"workers": {"Batch": {"lanes": {"x": 1}}}}, "Batch"),
    "a key in the gateway's URL": ({"upstream": {"url": "https://gateway.example.com/?key=x"}}, "url"),
    "a tag that would break the document": ({"image": {"tag": 'x"y'}}, "tag"),
    "a concurrency of none": ({"workerDefaults": {"concurrency": 0}}, "concurrency"),
    "a period of nothing": ({"workerDefaults": {"probes": {"liveness": {"periodSeconds": 0}}}}, "periodSeconds"),
}


@pytest.mark.parametrize("major", HELMS)
@pytest.mark.parametrize("case", REFUSED)
def test_wrong_values_are_refused(case: str, major: str) -> None:
    values, message = REFUSED[case]
    with pytest.raises(RefusedError) as refusal:
        render(values=values, major=major)
    assert message in str(refusal.value)


def test_hpa_scales_to_zero_only_where_kubernetes_can() -> None:
    """From 1.37 on, where HPAScaleToZero is on by default."""
    values = {"upstream": {"requestsPerMinute": 600}, "workerDefaults": HPA}
    with pytest.raises(RefusedError, match=r"from Kubernetes 1\.37 on"):
        render(values=values, kubernetes=OLDEST)
    assert render(values=values).one("HorizontalPodAutoscaler", "batch")["spec"]["minReplicas"] == 0


def test_grace_may_be_short_where_somebody_says_so() -> None:
    values = {"shutdown": {"graceSeconds": 25, "interruptCalls": True}}
    assert (
        render(values=values).one("Deployment", "batch")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
        == 45
    )


def test_every_key_of_the_values_has_a_type() -> None:
    """No object of the schema lets unknown keys through, except those that Kubernetes or the user defines."""
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    open_objects = {path for path, node in _objects(schema, "") if "additionalProperties" not in node}
    assert {path.rsplit("/", 1)[-1] for path in open_objects} == {
        "global", "podSecurityContext", "securityContext", "affinity", "items",
    }  # fmt: skip


def _objects(node: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    children: list[tuple[str, Any]] = []
    if isinstance(node, dict):
        mapping = cast("dict[str, Any]", node)
        if mapping.get("type") == "object":
            yield path, mapping
        children = [(f"{path}/{key}", value) for key, value in mapping.items()]
    elif isinstance(node, list):
        children = [(path, value) for value in cast("list[Any]", node)]
    for child_path, child in children:
        yield from _objects(child, child_path)
