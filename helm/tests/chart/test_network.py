"""The peers of a pod, in and out, by default and as values say."""

from typing import Any

import pytest
from charts import CHART, HELMS, render

REDIS = {"ipBlock": {"cidr": "10.1.0.0/16"}}
PROMETHEUS = {"matchLabels": {"app.kubernetes.io/name": "prometheus"}}


def policy(major: str, **values: Any) -> dict[str, Any]:
    (found,) = render(values=values, major=major).all("NetworkPolicy")
    return found["spec"]


@pytest.mark.parametrize("major", HELMS)
def test_by_default_only_the_namespace_reaches_the_one_port(major: str) -> None:
    """The kubelet is always let in. Where Redis is nobody said, so what pods reach is not limited."""
    spec = policy(major)

    assert spec["policyTypes"] == ["Ingress"]
    assert spec["ingress"] == [{"ports": [{"port": "http", "protocol": "TCP"}], "from": [{"podSelector": {}}]}]
    assert "egress" not in spec


@pytest.mark.parametrize("major", HELMS)
def test_prometheus_reaches_it_where_it_is_asked_to_scrape(major: str) -> None:
    """Its operator's pods, wherever they are; named peers go before that."""
    named = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "watchers"}}}

    scraped = policy(major, podMonitor={"enabled": True})["ingress"][0]["from"]
    chosen = policy(major, podMonitor={"enabled": True}, networkPolicy={"metricsFrom": [named]})["ingress"][0]["from"]

    assert scraped == [{"podSelector": {}}, {"namespaceSelector": {}, "podSelector": PROMETHEUS}]
    assert chosen == [named]


@pytest.mark.parametrize("major", HELMS)
def test_pods_reach_dns_redis_and_the_gateway_alone_where_redis_is_known(major: str) -> None:
    spec = policy(major, networkPolicy={"redis": {"to": [REDIS], "port": 6390}})

    assert spec["policyTypes"] == ["Ingress", "Egress"]
    dns, redis, https = spec["egress"]
    assert {port["port"] for port in dns["ports"]} == {53}
    assert (redis["ports"][0]["port"], redis["to"]) == (6390, [REDIS])
    assert https["ports"][0]["port"] == 443
    assert "169.254.0.0/16" in https["to"][0]["ipBlock"]["except"], "the cloud's metadata"


@pytest.mark.parametrize("major", HELMS)
def test_the_policy_may_be_switched_off(major: str) -> None:
    assert render(values={"networkPolicy": {"enabled": False}}, major=major).all("NetworkPolicy") == []


@pytest.mark.parametrize("major", HELMS)
def test_a_scraper_in_the_pod_may_be_the_only_reader(major: str) -> None:
    scraper = {"name": "scraper", "image": "registry.example.com/scraper@sha256:" + "0" * 64}
    rendered = render(
        values={
            "settings": {"WORKER_METRICS_FROM": "loopback"},
            "workerDefaults": {"extraContainers": [scraper]},
        },
        major=major,
    )

    assert rendered.one("ConfigMap", "worker")["data"]["WORKER_METRICS_FROM"] == "loopback"
    for group in ("interactive", "batch"):
        worker, beside = rendered.one("Deployment", group)["spec"]["template"]["spec"]["containers"]
        assert (worker["name"], beside) == ("worker", scraper)


def test_the_example_pins_the_image_by_digest() -> None:
    rendered = render(CHART / "ci" / "everything-values.yaml")
    for pod in rendered.pods():
        assert "@sha256:" in pod["spec"]["containers"][0]["image"]
