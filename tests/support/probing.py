"""What tests see of a worker's HTTP port, and workers that misbehave on purpose."""

import json
import math
import os
import re
import subprocess
import sys
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from support.harness import WorkerProcess, wait_until

_SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$")
_LABEL = re.compile(r'(\w+)="([^"]*)"')


def environment(redis_url: str, upstream_url: str, **own: str) -> dict[str, str]:
    """Of a worker that a test starts in its own way."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("WORKER_", "SENTRY_"))}
    return inherited | {
        "WORKER_REDIS_URL": redis_url,
        "WORKER_UPSTREAM_URL": upstream_url,
        "WORKER_UPSTREAM_API_KEY": "sk-test-key",
        "WORKER_REQUESTS_PER_MINUTE": "60000",
        "WORKER_HTTP_PORT": "0",
        "WORKER_LOG_FORMAT": "json",
        **own,
    }


class ScriptedWorker(WorkerProcess):
    """A worker run by a script of the test's, which may break it."""

    def __init__(self, script: str, environment: dict[str, str], log: Path) -> None:
        self.log_path = log
        self._log = log.open("wb")
        command = [sys.executable, "-c", script]
        self.process = subprocess.Popen(command, env=environment, stdout=self._log, stderr=self._log)


class Probe:
    """Asks one worker's probes, as a kubelet and Prometheus do."""

    def __init__(self, port: int) -> None:
        self.port = port

    @classmethod
    def of(cls, worker: WorkerProcess) -> "Probe":
        """The one that this worker says it opened."""
        (opened,) = wait_until(lambda: worker.events("probes.opened"), what="open probes")
        return cls(opened["port"])

    def get(self, path: str, timeout_s: float = 5) -> tuple[int, str]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def status(self, path: str) -> int:
        return self.get(path)[0]

    def verdict(self, path: str) -> dict[str, Any]:
        return json.loads(self.get(path)[1])

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that have these labels; NaN where there is none."""
        found = [
            float(sample[3])
            for line in self.get("/metrics")[1].splitlines()
            if (sample := _SAMPLE.match(line)) and sample[1] == f"responses_worker_{name}"
            if labels.items() <= dict(_LABEL.findall(sample[2] or "")).items()
        ]
        return sum(found) if found else math.nan
