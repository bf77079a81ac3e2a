"""The parts of a rendering mean each other, which no schema can see."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from charts import CHART, MATRIX, Rendered, render

from worker.config.values import duration
from worker.runtime.draining import HANDBACK_S

LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
QUANTITY = re.compile(r"\d+(\.\d+)?(m|k|Ki|Mi|Gi|Ti|M|G|T)?")
KEDA_PREFIX = "keda-hpa-"
"""KEDA labels its HPAs with this and the ScaledObject's name."""
TELEMETRY_FLUSH_S = 5
STARTUP_S = 30
"""Slow nodes start a Python process slowly."""

each_rendering = pytest.mark.parametrize("chart", MATRIX, ids=lambda path: path.stem)


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    return selector["matchLabels"].items() <= labels.items()


def workers(rendered: Rendered) -> list[dict[str, Any]]:
    """The Deployments of groups; the page is none."""
    found = rendered.all("Deployment")
    return [one for one in found if one["metadata"]["labels"]["app.kubernetes.io/component"] == "worker"]


def pod_labels(rendered: Rendered) -> list[dict[str, str]]:
    return [deployment["spec"]["template"]["metadata"]["labels"] for deployment in workers(rendered)]


@each_rendering
def test_every_selector_finds_exactly_its_own_pods(chart: Path) -> None:
    rendered = render(chart)
    for owners in (workers(rendered), rendered.all("PodDisruptionBudget")):
        for document in owners:
            found = [labels for labels in pod_labels(rendered) if selects(document["spec"]["selector"], labels)]
            assert len(found) == 1
            assert document["metadata"]["name"].endswith(found[0]["worker-group"])
    for deployment in rendered.all("Deployment"):
        for constraint in deployment["spec"]["template"]["spec"].get("topologySpreadConstraints", []):
            assert constraint["labelSelector"] == deployment["spec"]["selector"]


@each_rendering
def test_test_pod_belongs_to_no_group(chart: Path) -> None:
    """It must not count as a replica, nor be evicted or scraped as one; the network policy must let it out."""
    rendered = render(chart)
    assert len(rendered.all("Pod")) == (chart.stem != "fixed-values")
    for pod in rendered.all("Pod"):
        labels = pod["metadata"]["labels"]
        owners = [*rendered.all("Deployment"), *rendered.all("PodDisruptionBudget"), *rendered.all("PodMonitor")]
        assert not [owner for owner in owners if selects(owner["spec"]["selector"], labels)]
        policies = [one for one in rendered.all("NetworkPolicy") if not one["metadata"]["name"].endswith("-page")]
        assert all(selects(policy["spec"]["podSelector"], labels) for policy in policies)


@each_rendering
def test_replicas_belong_to_whoever_scales(chart: Path) -> None:
    """Helm 4 applies on the server: rendered replicas would fight the autoscaler, or fail the upgrade."""
    rendered = render(chart)
    scalers = [*rendered.all("ScaledObject"), *rendered.all("HorizontalPodAutoscaler")]
    scaled = [scaler["spec"]["scaleTargetRef"]["name"] for scaler in scalers]
    assert len(scaled) == len(set(scaled))
    for deployment in workers(rendered):
        assert ("replicas" in deployment["spec"]) is (deployment["metadata"]["name"] not in scaled)


@each_rendering
def test_grace_outlasts_everything_that_happens_in_it(chart: Path) -> None:
    """A call, handing back what is left, the flush of the telemetry; without the call where calls may be cut."""
    rendered = render(chart)
    interrupting = {"answers-interactive", "test-responses-worker-research"}
    shared = rendered.one("ConfigMap", "worker" if chart.stem != "fixed-values" else "answers")["data"]
    for deployment in workers(rendered):
        spec = deployment["spec"]["template"]["spec"]
        own = {entry["name"]: entry.get("value") for entry in spec["containers"][0]["env"]}
        settings = shared | own
        grace_s = duration(settings["WORKER_SHUTDOWN_GRACE"]).total_seconds()
        assert spec["terminationGracePeriodSeconds"] > grace_s + HANDBACK_S + TELEMETRY_FLUSH_S
        if deployment["metadata"]["name"] not in interrupting:
            assert grace_s > duration(settings["WORKER_REQUEST_TIMEOUT"]).total_seconds()


@each_rendering
def test_probes_ask_the_port_that_is_served(chart: Path) -> None:
    for deployment in workers(render(chart)):
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        ports = {port["name"] for port in container["ports"]}
        probes = {name: container[f"{name}Probe"] for name in ("startup", "liveness", "readiness")}
        assert {probe["httpGet"]["port"] for probe in probes.values()} <= ports
        assert probes["liveness"]["httpGet"]["path"] == "/livez"
        assert probes["readiness"]["httpGet"]["path"] == "/readyz"
        assert probes["startup"]["periodSeconds"] * probes["startup"]["failureThreshold"] > STARTUP_S


@each_rendering
def test_references_lead_somewhere(chart: Path) -> None:
    """Volumes are mounted and mounts have volumes; config maps, service accounts and credentials exist."""
    rendered = render(chart)
    accounts = {account["metadata"]["name"] for account in rendered.all("ServiceAccount")} | {"default"}
    configs = {config["metadata"]["name"] for config in rendered.all("ConfigMap")} | {"proxy"}
    for pod in rendered.pods():
        spec = pod["spec"]
        volumes = {volume["name"] for volume in spec["volumes"]}
        assert spec["serviceAccountName"] in accounts
        for container in spec["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} == volumes
            assert {source["configMapRef"]["name"] for source in container["envFrom"]} <= configs
    credentials = {auth["metadata"]["name"] for auth in rendered.all("TriggerAuthentication")}
    for scaled in rendered.all("ScaledObject"):
        assert {trigger["authenticationRef"]["name"] for trigger in scaled["spec"]["triggers"]} <= credentials


@each_rendering
def test_quantities_can_be_read(chart: Path) -> None:
    for pod in render(chart).pods():
        for container in pod["spec"]["containers"]:
            amounts = [amount for part in container["resources"].values() for amount in part.values()]
            assert all(QUANTITY.fullmatch(str(amount)) for amount in amounts)


@pytest.mark.parametrize("release", ["a", "r" * 53, "responses-worker"])
@each_rendering
def test_names_fit_whatever_the_release_is_called(chart: Path, release: str) -> None:
    """A group with the longest name there may be, too."""
    longest = {"workers": {"g" * 15: {"lanes": {"other": 1}, "autoscaling": {"minReplicas": 1}}}}
    rendered = render(chart, values=longest, release=release)
    for document in rendered:
        assert LABEL.fullmatch(document["metadata"]["name"]), document["metadata"]["name"]
    assert all(len(KEDA_PREFIX + scaled["metadata"]["name"]) <= 63 for scaled in rendered.all("ScaledObject"))
    assert all(len(value) <= 63 for value in labels(rendered))


def labels(rendered: Rendered) -> Iterator[str]:
    for document in [*rendered, *rendered.pods()]:
        yield from document["metadata"].get("labels", {}).values()


def test_pods_are_replaced_when_their_settings_change() -> None:
    """Environment variables are read once, at the start."""

    def template(values: dict[str, Any]) -> dict[str, Any]:
        return render(values=values).one("Deployment", "interactive")["spec"]["template"]

    assert template({}) == template({"podMonitor": {"enabled": True}})
    for change in (
        {"settings": {"WORKER_LOG_LEVEL": "DEBUG"}},
        {"upstream": {"requestsPerMinute": 60}},
        {"redis": {"url": "redis://elsewhere"}},
        {"upstream": {"apiKey": "another"}},
    ):
        before, after = template({})["metadata"]["annotations"], template(change)["metadata"]["annotations"]
        assert before != after, change


def test_disruption_budget_never_blocks_a_drain_of_one_pod() -> None:
    """`minAvailable: 1` of one replica would; by default one pod may always go, and unready ones too."""
    for budget in render().all("PodDisruptionBudget"):
        assert budget["spec"]["maxUnavailable"] == 1
        assert budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
        assert "minAvailable" not in budget["spec"]
    half = render(CHART / "ci" / "everything-values.yaml").one("PodDisruptionBudget", "batch")["spec"]
    assert half["minAvailable"] == "50%"
    assert "maxUnavailable" not in half
