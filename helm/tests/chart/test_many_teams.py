"""Groups of several teams in one release: what each may have of its own, with Helm 3 and 4."""

from typing import Any

import pytest
from charts import CHART, HELMS, RefusedError, Rendered, render

TEAMS = CHART / "ci" / "teams-values.yaml"
each_helm = pytest.mark.parametrize("major", HELMS)


def deployment(rendered: Rendered, group: str) -> dict[str, Any]:
    return rendered.one("Deployment", f"-{group}")


def pod(rendered: Rendered, group: str) -> dict[str, Any]:
    return deployment(rendered, group)["spec"]["template"]["spec"]


def variables(rendered: Rendered, group: str) -> dict[str, str]:
    return {entry["name"]: entry.get("value", "") for entry in pod(rendered, group)["containers"][0]["env"]}


@each_helm
def test_a_group_has_settings_and_grace_of_its_own(major: str) -> None:
    rendered = render(TEAMS, major=major)

    own, others = variables(rendered, "research"), variables(rendered, "interactive")
    assert own["WORKER_LOG_LEVEL"] == "DEBUG"
    assert own["WORKER_MAX_BODY"] == "8388608"
    assert (own["WORKER_REQUEST_TIMEOUT"], own["WORKER_SHUTDOWN_GRACE"]) == ("1800s", "60s")
    assert not {"WORKER_LOG_LEVEL", "WORKER_SHUTDOWN_GRACE"} & others.keys()
    grace = {group: pod(rendered, group)["terminationGracePeriodSeconds"] for group in ("research", "interactive")}
    assert grace == {"research": 80, "interactive": 330}


@each_helm
def test_a_group_has_containers_and_variables_of_its_own(major: str) -> None:
    rendered = render(TEAMS, major=major)

    assert [container["name"] for container in pod(rendered, "research")["initContainers"]] == ["wait"]
    assert "initContainers" not in pod(rendered, "interactive")
    assert pod(rendered, "research")["containers"][0]["envFrom"][-1] == {"configMapRef": {"name": "proxy"}}
    annotations = deployment(rendered, "interactive")["metadata"]["annotations"]
    assert annotations == {"reloader.example.com/auto": "true"}


@each_helm
def test_a_groups_own_constraints_replace_the_charts(major: str) -> None:
    """With the group's selector, which nobody has to repeat; a selector that is given stays."""
    rendered = render(TEAMS, major=major)

    (constraint,) = pod(rendered, "interactive")["topologySpreadConstraints"]
    assert (constraint["maxSkew"], constraint["whenUnsatisfiable"]) == (2, "DoNotSchedule")
    assert constraint["labelSelector"] == deployment(rendered, "interactive")["spec"]["selector"]
    assert len(pod(rendered, "research")["topologySpreadConstraints"]) == 2
    mine = {"topologyKey": "rack", "labelSelector": {"matchLabels": {"rack": "mine"}}}
    given = render(values={"workerDefaults": {"topologySpreadConstraints": [mine]}}, major=major)
    assert pod(given, "batch")["topologySpreadConstraints"] == [mine]


@each_helm
def test_secrets_may_come_from_elsewhere(major: str) -> None:
    """The key by CSI, the CA of Redis and all other CAs from ConfigMaps."""
    rendered = render(TEAMS, major=major)

    spec = pod(rendered, "research")
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    mounts = {mount["name"]: mount["mountPath"] for mount in spec["containers"][0]["volumeMounts"]}
    assert volumes["upstream"]["csi"] == {
        "driver": "secrets-store.csi.k8s.io", "readOnly": True,
        "volumeAttributes": {"secretProviderClass": "gateway"},
    }  # fmt: skip
    own = variables(rendered, "research")
    assert own["WORKER_UPSTREAM_API_KEY_FILE"] == f"{mounts['upstream']}/gateway-key"
    assert own["SSL_CERT_FILE"] == f"{mounts['ca-bundle']}/ca.crt"
    assert volumes["ca-bundle"]["configMap"]["items"] == [{"key": "bundle.pem", "path": "ca.crt"}]
    assert volumes["redis-ca"]["configMap"]["name"] == "redis-ca"
    keda = rendered.one("TriggerAuthentication")["spec"]
    assert keda["configMapTargetRef"] == [{"parameter": "ca", "name": "redis-ca", "key": "ca.crt"}]
    assert "ca" not in {entry["parameter"] for entry in keda["secretTargetRef"]}


@each_helm
def test_pods_may_reach_more_than_the_chart_knows(major: str) -> None:
    egress = render(TEAMS, major=major).one("NetworkPolicy", "responses-worker")["spec"]["egress"]

    _, redis, _, collector = egress
    assert [port["port"] for port in redis["ports"]] == [6379, 26379, 6380]
    assert collector["ports"] == [{"port": 4318, "protocol": "TCP"}]


@each_helm
def test_the_page_is_apart_from_the_workers(major: str) -> None:
    """Behind the token of a Secret; it is no replica, nobody scrapes it, and it has a door of its own."""
    rendered = render(TEAMS, major=major)

    page = rendered.one("Deployment", "-page")["spec"]["template"]
    (container,) = page["spec"]["containers"]
    assert container["args"] == ["dashboard", "--host", "0.0.0.0", "--port", "8090"]  # noqa: S104  # in its pod
    names = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert names["WORKER_DASHBOARD_TOKEN_FILE"] == "/run/secrets/page/token"
    assert names["WORKER_LANES"] == "interactive=4,research=2,research-night=1"
    assert rendered.one("Service")["spec"]["selector"].items() <= page["metadata"]["labels"].items()
    door = rendered.one("NetworkPolicy", "-page")["spec"]["ingress"]
    assert door[0]["ports"] == [{"port": "page", "protocol": "TCP"}]
    assert page["metadata"]["labels"]["app.kubernetes.io/component"] == "page"


@each_helm
def test_a_release_may_hold_objects_of_its_own(major: str) -> None:
    """As objects or as text, with template expressions in both."""
    rendered = render(TEAMS, major=major, release="answers")

    assert rendered.one("ConfigMap", "answers-responses-worker-more")["data"] == {"release": "answers"}
    assert rendered.one("ConfigMap", "as-text")


@each_helm
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"upstream": {"csi": {"driver": "x"}, "existingSecret": "mine"}}, "upstream.csi, upstream.apiKey"),
        ({"fleetPage": {"enabled": True}}, "fleetPage.existingSecret: the page is behind a token"),
        ({"redis": {"ca": {"configMap": "a"}, "keys": {"ca": "b"}}}, "redis.ca.configMap and redis.keys.ca"),
        ({"networkPolicy": {"extraEgress": [{}]}}, "say where Redis is"),
        ({"workers": {"batch": {"settings": {"WORKER_FLEET": "green"}}}}, "settings"),
        ({"workers": {"batch": {"settings": {"WORKER_LOG_LEVL": "INFO"}}}}, "WORKER_LOG_LEVL"),
        ({"workers": {"batch": {"requestTimeoutSeconds": 400}}}, "workers.batch: shutdown.graceSeconds 310 is below"),
    ],
)
def test_what_cannot_be_meant_is_refused(values: dict[str, Any], message: str, major: str) -> None:
    with pytest.raises(RefusedError) as refusal:
        render(values=values, major=major)
    assert message in str(refusal.value)


def test_a_group_that_cuts_calls_says_so_for_itself() -> None:
    own = {"requestTimeoutSeconds": 400, "shutdown": {"interruptCalls": True}}
    assert render(values={"workers": {"batch": own}}).all("Deployment")
