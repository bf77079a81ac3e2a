"""Flower's own API, asked about a real worker: it shows workers, tasks and how they ended."""

import json
import os
import subprocess
import sys
from collections.abc import Generator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Final

import pytest
from support.polling import wait_until
from support.producer import Producer
from support.redis_parts import free_port
from support.worker_process import Fleet

FLOWER: Final = Path(sys.prefix) / "flower" / "bin" / "celery"
CANARY: Final = "the prompt that no event may hold"


class Flower:
    """Flower in a process of its own, on a free port of loopback, asked over HTTP."""

    def __init__(self, redis_url: str, log: Path) -> None:
        self.port = free_port()
        self._log = log.open("wb")
        options = ["--address=127.0.0.1", f"--port={self.port}", "--inspect_timeout=1000"]
        self.process = subprocess.Popen(
            [str(FLOWER), f"--broker={redis_url}", "flower", *options],
            env={**os.environ, "FLOWER_UNAUTHENTICATED_API": "true"},
            stdout=self._log,
            stderr=self._log,
        )

    def get(self, path: str) -> Any:
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=10)) as connection:
            connection.request("GET", path)
            answer = connection.getresponse()
            return json.loads(answer.read()) if answer.status == 200 else {}

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._log.close()


@pytest.fixture
def flower(redis_url: str, tmp_path: Path) -> Generator[Flower]:
    started = Flower(redis_url, tmp_path / "flower.log")
    yield started
    started.close()


def test_flower_shows_workers_and_tasks(fleet: Fleet, producer: Producer, flower: Flower) -> None:
    def workers() -> Any:
        try:
            return flower.get("/api/workers?refresh=true&status=true")
        except OSError:
            return {}

    wait_until(lambda: flower.process.poll() is None and _answers(flower), within_s=30, what="Flower's API")
    fleet.start(celery_events="true")
    wait_until(lambda: any(workers().values()), within_s=30, what="a worker that is online")

    completed = producer.ask(CANARY)
    failed = producer.ask(f"{CANARY} [[sim:400]]")
    producer.results(2)
    tasks = wait_until(lambda: _ended(flower, {completed, failed}), within_s=20, what="both ends")

    assert (tasks[completed]["state"], tasks[completed]["name"]) == ("SUCCESS", "responses.create")
    assert (tasks[failed]["state"], tasks[failed]["exception"]) == ("FAILURE", "invalid_request")
    (worker,) = {task["worker"] for task in tasks.values()}
    assert worker in workers()
    assert CANARY not in json.dumps(tasks)


def _answers(flower: Flower) -> bool:
    try:
        return flower.get("/api/tasks") is not None
    except OSError:
        return False


def _ended(flower: Flower, wanted: set[str]) -> dict[str, Any]:
    found = {uuid: task for uuid, task in flower.get("/api/tasks").items() if task["state"] in ("SUCCESS", "FAILURE")}
    return found if wanted <= found.keys() else {}
