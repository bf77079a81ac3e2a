"""The worker understands the chart's settings."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from charts import CHART, MATRIX, Rendered, render

from worker.config.environment import variable
from worker.config.sentry_settings import SentrySettings, load_sentry
from worker.config.settings import Settings, load

DECIDED_BY_THE_CHART = {
    "config_file", "redis_url", "upstream_url", "upstream_api_key", "upstream_api_key_file", "requests_per_minute",
    "tokens_per_minute", "max_in_flight", "burst_seconds", "concurrency", "lanes", "request_timeout", "shutdown_grace",
    "http_port", "scaling_file", "dashboard_token", "dashboard_token_file",
}  # fmt: skip
"""Settings that have values of their own, because the chart's other parts follow from them."""


WORKER_READS = {variable(Settings, name) for name in Settings.model_fields}
SENTRY_READS = {variable(SentrySettings, name) for name in SentrySettings.model_fields}


def environment(rendered: Rendered, pod: dict[str, Any]) -> dict[str, str]:
    """The environment of a pod's first container, but for values out of Secrets."""
    (container,) = pod["spec"]["containers"]
    source = container["envFrom"][0]["configMapRef"]["name"]
    config = next(c["data"] for c in rendered.all("ConfigMap") if c["metadata"]["name"] == source)
    return config | {variable["name"]: variable["value"] for variable in container["env"] if "value" in variable}


def placed(rendered: Rendered, directory: Path) -> str:
    """The path of the routes' file, written as it would be mounted."""
    file = directory / "routes.toml"
    file.write_text(rendered.one("ConfigMap", "-routes")["data"]["routes.toml"])
    return str(file)


@pytest.mark.parametrize("values", MATRIX, ids=lambda path: path.stem)
def test_a_worker_starts_with_what_is_rendered(values: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every variable is one that it knows, and holds what it accepts."""
    rendered = render(values)
    for pod in rendered.pods():
        variables = environment(rendered, pod)
        ours = {name for name in variables if name.startswith(("WORKER_", "SENTRY_"))}
        assert ours <= WORKER_READS | SENTRY_READS
        for name, value in variables.items():
            monkeypatch.setenv(name, placed(rendered, tmp_path) if name == "WORKER_CONFIG_FILE" else value)
        settings = load()
        assert settings.http_port == 8080
        assert settings.lanes


def test_values_reach_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    rendered = render(CHART / "ci" / "everything-values.yaml")
    for name, value in environment(rendered, rendered.one("Deployment", "batch")["spec"]["template"]).items():
        monkeypatch.setenv(name, value)
    settings = load()
    assert settings.lanes == {"batch": 1, "reports": 1}
    assert settings.concurrency == 200
    assert settings.requests_per_minute == 3000
    assert settings.tokens_per_minute == 5_000_000
    assert settings.results_high_water == 2_000_000
    assert settings.log_format == "json"
    on_call = load_sentry()
    assert on_call.traces_sample_rate == 0.05
    assert on_call.runbook_url == "https://runbooks.example.com/"
    assert on_call.release == "responses-worker@0.1.0"


def test_schema_knows_every_setting() -> None:
    """A setting that is new in the worker is offered by the chart, or decided by it."""
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    offered = {name.removeprefix("WORKER_").lower() for name in schema["properties"]["settings"]["properties"]}
    assert offered | DECIDED_BY_THE_CHART == Settings.model_fields.keys()
    assert not offered & DECIDED_BY_THE_CHART


def test_secrets_are_in_secrets_only() -> None:
    rendered = render(values={"redis": {"url": "redis://u:CANARY@h/1"}, "upstream": {"apiKey": "CANARY"}})
    holders = [document["kind"] for document in rendered if "CANARY" in yaml.safe_dump(document)]
    assert holders == ["Secret"]


def test_keda_gets_the_parts_of_the_url() -> None:
    """Decoded, because KEDA takes them as they are; with the database and TLS that the URL asks for."""
    rendered = render(CHART / "ci" / "inline-values.yaml")
    secret = rendered.one("Secret")["stringData"]
    keys = {
        entry["parameter"]: entry["key"] for entry in rendered.one("TriggerAuthentication")["spec"]["secretTargetRef"]
    }
    assert {parameter: secret[key] for parameter, key in keys.items()} == {
        "address": "redis.example.com:6379",
        "username": "worker",
        "password": "p@ss/word",
    }
    for trigger in rendered.one("ScaledObject", "batch")["spec"]["triggers"]:
        assert trigger["metadata"]["databaseIndex"] == "2"
        assert trigger["metadata"]["enableTLS"] == "true"


def test_keda_is_told_of_sentinel() -> None:
    rendered = render(CHART / "ci" / "sentinel-values.yaml")
    parameters = {entry["parameter"] for entry in rendered.one("TriggerAuthentication")["spec"]["secretTargetRef"]}
    assert parameters == {"addresses", "password"}
    for trigger in rendered.one("ScaledObject")["spec"]["triggers"]:
        assert trigger["type"] == "redis-sentinel"
        assert trigger["metadata"]["sentinelMaster"] == "main"


def test_routes_reach_the_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the file that a worker reads, with each key where a Secret is mounted; the one upstream is not told of."""
    rendered = render(CHART / "ci" / "routes-values.yaml")
    pod = rendered.one("Deployment", "batch")["spec"]["template"]
    variables = environment(rendered, pod)
    mounts = {mount["name"]: mount["mountPath"] for mount in pod["spec"]["containers"][0]["volumeMounts"]}
    for name, value in variables.items():
        monkeypatch.setenv(name, placed(rendered, tmp_path) if name == "WORKER_CONFIG_FILE" else value)

    routing = load().routing

    assert variables["WORKER_CONFIG_FILE"] == f"{mounts['routes']}/routes.toml"
    assert "WORKER_UPSTREAM_URL" not in variables
    primary, backup = routing.routes["primary"], routing.routes["backup"]
    assert str(primary.key.file) == f"{mounts['gateway']}/primary"
    assert str(backup.key.file) == f"{mounts['gateway']}/spare-key"
    assert backup.models == {"gpt-5.4-mini": "openai/gpt-5.4-mini"}
    assert routing.accounts["main"].models["gpt-5.4-mini"].requests_per_minute == 300
    assert routing.prices["gpt-5.4-mini"].cached_input == 0.025
