"""The chart's Deployment, run: what it asks for is enough for the image, and the image lives within it."""

import json
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
import yaml
from engine import NO_CAPABILITIES, Container, Engine
from pods import playable
from readiness import is_ready
from support.polling import wait_until
from support.producer import Producer

from worker.devtools.devstack import Simulator

sys.path.append(str(Path(__file__).parents[1] / "chart"))

from charts import render

GROUP = "interactive"


@pytest.fixture
def pod(engine: Engine, image: str, redis_server: str, gateway: Simulator, tmp_path: Path) -> Generator[Container]:
    """Of the only group, ready."""
    repository, _, tag = image.rpartition(":")
    values: dict[str, Any] = {
        "image": {"repository": repository, "tag": tag},
        "redis": {"url": redis_server},
        "upstream": {"url": gateway.url, "apiKey": "sk-test-key"},
        "workers": {"batch": None},
    }
    rendered = render(values=values)
    documents = playable(rendered.one("ConfigMap"), rendered.one("Secret"), rendered.one("Deployment", GROUP))
    file = tmp_path / "pod.yaml"
    file.write_text(yaml.safe_dump_all(documents), encoding="utf-8")
    engine.podman("play", "kube", "--network", "host", str(file))
    try:
        container = Container(f"{rendered.one('Deployment', GROUP)['metadata']['name']}-pod-0-worker", engine)
        wait_until(lambda: is_ready(container), within_s=30, what="a ready pod")
        yield container
    finally:
        engine.podman("play", "kube", "--down", str(file))


def test_rendered_pod_answers_and_drains(pod: Container, producer: Producer, gateway: Simulator) -> None:
    """Read-only, without root and capabilities, with the rendered settings and Secrets and nothing else."""
    host = json.loads(pod.engine.podman("inspect", pod.name))[0]["HostConfig"]
    assert host["ReadonlyRootfs"]
    process = pod.process
    assert (process["Uid"].split()[0], process["CapEff"]) == ("10001", NO_CAPABILITIES)
    gateway.configure(latency_median_s=3.0)
    request_id = producer.ask()
    wait_until(lambda: gateway.stats().in_flight == 1, what="a call in flight")
    pod.engine.podman("stop", "--time", "15", pod.name)  # SIGTERM, then SIGKILL; and no restart afterwards
    assert pod.state["ExitCode"] == 0
    assert producer.result(request_id)["outcome"] == "completed"
