"""A client of a worker's HTTP port: its probes and its metrics."""

import json
import math
import re
from http.client import HTTPConnection
from typing import Any

from support.polling import wait_until
from support.worker_process import WorkerProcess

_SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$")
_LABEL = re.compile(r'(\w+)="([^"]*)"')


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
