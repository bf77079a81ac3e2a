"""The image as a cluster runs it: read-only, unprivileged, without a shell, ended by SIGTERM."""

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from engine import NO_CAPABILITIES, CommandError, Container, Engine
from readiness import is_ready
from support.polling import wait_until
from support.producer import Producer

from worker.devtools.devstack import Simulator

MEBIBYTE = 1024 * 1024
MOST_MEBIBYTES = 230
"""The base is 115 of them, compiled dependencies and their byte code the rest."""

Start = Callable[..., Container]


def test_image_is_small_numbered_and_labelled(engine: Engine, image: str, figures: dict[str, str]) -> None:
    """Kubernetes can tell that it is not root, a registry can tell what it is, and a node pulls it quickly."""
    built = engine.image(image)
    figures["image size"] = f"{built['Size'] / MEBIBYTE:.0f} MiB"
    assert built["Config"]["User"] == "10001:10001"
    assert built["Config"]["Entrypoint"] == ["/app/bin/responses-worker"]
    assert built["Config"]["Cmd"] == ["run"]
    assert built["Labels"]["org.opencontainers.image.title"] == "responses-worker"
    assert built["Labels"]["org.opencontainers.image.licenses"] == "MIT"
    assert built["Size"] < MOST_MEBIBYTES * MEBIBYTE


def test_stand_ins_for_development_stay_out(engine: Engine, image: str) -> None:
    """Neither the simulated gateway nor the demo is in the image, nor what the demo plays."""
    run = ("run", "--rm", "--network", "host")
    find = "import pathlib, worker; print(sorted(path.name for path in pathlib.Path(worker.__file__).parent.iterdir()))"
    found = engine.podman(*run, "--entrypoint", "/app/bin/python", image, "-c", find)

    assert "devtools" not in found
    assert "examples" not in found
    assert "'cli.py'" in found
    with pytest.raises(CommandError, match="simulator: this installation leaves it out"):
        engine.podman(*run, image, "simulator")


def test_same_sources_give_the_same_image(engine: Engine, image: str) -> None:
    """A second build that shares nothing with the first has its id: no times, no order, no luck inside."""
    first = engine.image(image)["Id"]
    assert engine.build(image, "--no-cache") == first


def test_request_goes_through_a_locked_down_container(
    start: Start, producer: Producer, figures: dict[str, str]
) -> None:
    began = time.monotonic()
    container = start()
    figures["start to ready"] = f"{time.monotonic() - began:.1f} s"
    process = container.process
    figures["idle memory"] = f"{int(process['VmRSS'].split()[0]) / 1024:.0f} MiB"
    request_id = producer.ask()
    assert producer.result(request_id)["outcome"] == "completed"
    assert process["Uid"].split()[0] == "10001"
    assert process["CapEff"] == NO_CAPABILITIES
    assert process["NoNewPrivs"] == "1"


def test_sigterm_lets_calls_in_flight_finish(
    start: Start, producer: Producer, gateway: Simulator, figures: dict[str, str]
) -> None:
    """Ten paid calls are under way when the pod must go: ten answers, no call made twice, exit code 0."""
    gateway.configure(latency_median_s=5.0)
    container = start(shutdown_grace="20s")
    for _ in range(10):
        producer.ask()
    wait_until(lambda: gateway.stats().in_flight == 10, what="ten calls in flight")
    began = time.monotonic()
    container.terminate()
    wait_until(lambda: not is_ready(container), what="no more readiness")
    assert container.wait(within_s=15) == 0
    figures["SIGTERM to exit, 10 calls of 5 s in flight"] = f"{time.monotonic() - began:.1f} s"
    assert [result["outcome"] for result in producer.entries()] == ["completed"] * 10
    assert len(gateway.calls()) == 10
    assert producer.leftovers() == {}


def test_calls_longer_than_the_grace_are_handed_back_at_once(
    start: Start, producer: Producer, gateway: Simulator, figures: dict[str, str]
) -> None:
    """A call that cannot finish waits in its lane when the container is gone, and the next container answers it."""
    gateway.configure(latency_median_s=30.0)
    container = start(shutdown_grace="1s")
    for _ in range(10):
        producer.ask()
    wait_until(lambda: gateway.stats().in_flight == 10, what="ten calls in flight")
    began = time.monotonic()
    container.terminate()
    assert container.wait(within_s=15) == 0
    figures["SIGTERM to exit, 10 calls longer than a grace of 1 s"] = f"{time.monotonic() - began:.1f} s"
    assert producer.leftovers() == {"responses.interactive": 10}
    gateway.configure(latency_median_s=0.0)
    start()
    assert [result["outcome"] for result in producer.results(10)] == ["completed"] * 10


def test_sigterm_during_the_start_ends_the_container(start: Start) -> None:
    """The first process of a container ignores signals it has no handler for, and the kubelet sends only one.

    So a handler must be there before the slow imports, or a pod deleted while it starts outstays its grace.
    """
    container = start(ready=False)
    pid = container.state["Pid"]
    wait_until(lambda: _catches_sigterm(pid), within_s=15, what="a handler for SIGTERM")
    assert "uvloop" not in Path(f"/proc/{pid}/maps").read_text(encoding="utf-8")
    container.terminate()
    assert container.wait(within_s=15) == 0


def _catches_sigterm(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    (caught,) = (line.split()[1] for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)
