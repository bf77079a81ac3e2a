"""The examples of web services, in their own servers, against a live worker."""

import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from support.command_line import ROOT, environment
from support.polling import wait_until
from support.producer import Producer
from support.redis_parts import free_port
from support.worker_process import Fleet

from bench.deltas_gateway import gateway_process
from worker.devtools.devstack import Simulator

PYTHON = ROOT / ".venv" / "services" / "bin" / "python"


@contextmanager
def served(port: int, redis_url: str, *command: str) -> Generator[httpx.Client]:
    """A client of the service that this command starts, once it answers."""
    url = f"http://127.0.0.1:{port}"
    settings = environment(WORKER_REDIS_URL=redis_url, PYTHONPATH=str(ROOT))
    with (
        subprocess.Popen([PYTHON, *command], env=settings, cwd=ROOT) as server,
        httpx.Client(base_url=url, timeout=20) as client,
    ):
        try:
            wait_until(lambda: _answers(client), within_s=30, what=f"a service on port {port}")
            yield client
        finally:
            server.terminate()
            server.wait(10)


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/").status_code < 500
    except httpx.TransportError:
        return False


@pytest.fixture
def fastapi_service(redis_url: str) -> Generator[httpx.Client]:
    port = free_port()
    options = ("--app-dir", "examples", "--port", str(port), "--log-level", "warning")
    with served(port, redis_url, "-m", "uvicorn", *options, "fastapi_service:app") as client:
        yield client


@pytest.fixture
def django_service(redis_url: str) -> Generator[httpx.Client]:
    port = free_port()
    command = (str(Path("examples") / "django_service.py"), "runserver", "--noreload", str(port))
    with served(port, redis_url, *command) as client:
        yield client


def test_fastapi_waits_streams_and_cancels(
    fastapi_service: httpx.Client, fleet: Fleet, gateway: Simulator, producer: Producer
) -> None:
    fleet.start()

    assert fastapi_service.post("/ask", params={"question": "Grüße"}).json()["answer"] == "Echo: Grüße"
    assert fastapi_service.post("/ask", params={"question": "[[sim:400]]"}).status_code == 422
    assert "EventSource" in fastapi_service.get("/").text
    with fastapi_service.stream("GET", "/stream", params={"question": "A story, please"}) as streamed:
        lines = list(streamed.iter_lines())
    assert streamed.headers["content-type"].startswith("text/event-stream")
    assert "event: response.output_text.delta" in lines
    assert lines[-2:] == ['data: {"outcome":"completed"}', ""]

    calls = len(gateway.calls())
    with fastapi_service.stream("GET", "/stream", params={"question": "[[sim:slow=30]]"}):
        wait_until(lambda: len(gateway.calls()) > calls, what="a call that nobody will wait for")
    wait_until(lambda: _codes(producer)[-1:] == ["cancelled"], what="its cancellation")


def test_django_waits_and_streams(django_service: httpx.Client, fleet: Fleet) -> None:
    fleet.start()

    assert django_service.post("/ask", data={"question": "Grüße"}).json() == {"answer": "Echo: Grüße"}
    assert django_service.post("/ask", data={"question": "[[sim:400]]"}).status_code == 502
    assert django_service.get("/stream", params={"question": "A story"}).text == "Echo: A story"


def test_a_browser_that_leaves_cancels_its_request(
    django_service: httpx.Client, redis_url: str, producer: Producer
) -> None:
    """Django notices it at the next piece of text; the call would go on for half a minute."""
    with gateway_process(per_second=20, seconds=30) as gateway, Fleet(redis_url, gateway) as fleet:
        fleet.start()
        with django_service.stream("GET", "/stream", params={"question": "A story"}) as streamed:
            assert next(streamed.iter_text())

        wait_until(lambda: _codes(producer) == ["cancelled"], what="its cancellation")


def _codes(producer: Producer) -> list[str | None]:
    return [entry["error"] and entry["error"]["code"] for entry in producer.entries()]
