"""The image, built once, and what its containers talk to on loopback."""

from collections.abc import Callable, Generator
from pathlib import Path

import pytest
import redis
from engine import Container, Engine, UnavailableError
from readiness import is_ready
from support.polling import wait_until
from support.producer import Producer

from worker.devtools.devstack import Simulator, embedded_valkey, simulated_gateway

TAG = "localhost/responses-worker:test"
FIGURES = pytest.StashKey[dict[str, str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[FIGURES] = {}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The figures that were measured on the way."""
    for what, figure in config.stash[FIGURES].items():
        terminalreporter.write_line(f"{what}: {figure}")


@pytest.fixture
def figures(pytestconfig: pytest.Config) -> dict[str, str]:
    """Measurements by name, printed at the end of the run."""
    return pytestconfig.stash[FIGURES]


@pytest.fixture(scope="session")
def engine() -> Engine:
    try:
        return Engine.ready()
    except UnavailableError as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="session")
def image(engine: Engine) -> Generator[str]:
    """The tag of the image under test; images of earlier runs go, the base stays."""
    engine.build(TAG)
    yield TAG
    engine.podman("image", "prune", "--force")


@pytest.fixture(scope="session")
def gateway_server() -> Generator[Simulator]:
    with simulated_gateway() as simulator:
        yield simulator


@pytest.fixture
def gateway(gateway_server: Simulator) -> Simulator:
    gateway_server.configure(latency_median_s=0.0)
    gateway_server.reset()
    return gateway_server


@pytest.fixture(scope="session")
def redis_server() -> Generator[str]:
    with embedded_valkey() as server:
        yield server.url


@pytest.fixture
def producer(redis_server: str) -> Generator[Producer]:
    """Of an empty server."""
    with redis.Redis.from_url(redis_server) as client:  # pyright: ignore[reportUnknownMemberType]  # untyped kwargs
        client.flushall()  # pyright: ignore[reportUnknownMemberType]  # untyped kwargs
    with Producer(redis_server) as producer:
        yield producer


@pytest.fixture
def start(
    engine: Engine, image: str, redis_server: str, gateway: Simulator, tmp_path: Path
) -> Generator[Callable[..., Container]]:
    """Starts a worker's container; settings by name without their prefix."""
    tmp_path.chmod(0o755)  # the worker inside is somebody else
    key = tmp_path / "api-key"
    key.write_text("sk-test-key", encoding="utf-8")
    base = {
        "redis_url": redis_server,
        "upstream_url": gateway.url,
        "upstream_api_key_file": "/run/secrets/upstream/api-key",
        "http_port": "0",
        "log_format": "json",
    }
    containers: list[Container] = []

    def start(*, ready: bool = True, **settings: str) -> Container:
        options = ["--mount", f"type=bind,src={key.parent},dst=/run/secrets/upstream,ro"]
        for name, value in (base | settings).items():
            options += ["--env", f"WORKER_{name.upper()}={value}"]
        container = engine.run(image, f"responses-worker-test-{len(containers)}", *options)
        containers.append(container)
        if ready:
            wait_until(lambda: is_ready(container), within_s=30, what="a ready worker")
        return container

    yield start
    for container in containers:
        container.remove()
