"""Worker processes with real signals and a log that tests can read."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from support.forked import Forked
from support.polling import wait_until


def worker_environment(redis_url: str, upstream_url: str, **own: str) -> dict[str, str]:
    """Returns this process's environment without its worker and Sentry settings, plus plain settings and `own`."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("WORKER_", "SENTRY_"))}
    return inherited | {
        "WORKER_REDIS_URL": redis_url,
        "WORKER_UPSTREAM_URL": upstream_url,
        "WORKER_UPSTREAM_API_KEY": "sk-test-key",
        "WORKER_REQUESTS_PER_MINUTE": "60000",  # a known limit; tests of learning take it away
        "WORKER_HTTP_PORT": "0",
        "WORKER_LOG_FORMAT": "json",
        "PYTHONUNBUFFERED": "1",
        **own,
    }


class WorkerProcess:
    """A worker in a process of its own. Its log is kept.

    Without a script this is `responses-worker run`. A script starts the worker itself, and may break it first. A forked
    worker costs a tenth of a start (`forked.py`); figures of memory and CPU are taken of those that are not.
    """

    def __init__(self, environment: dict[str, str], log: Path, script: str = "", *, forked: bool = False) -> None:
        self.log_path = log
        self.process: Forked | subprocess.Popen[bytes]
        if forked:
            self.process = Forked(["run"], environment, stdout=log, stderr=log)
            return
        command = [sys.executable, *(["-c", script] if script else ["-m", "worker", "run"])]
        with log.open("wb") as out:
            self.process = subprocess.Popen(command, env=environment, stdout=out, stderr=out)

    @property
    def log(self) -> str:
        return self.log_path.read_text(encoding="utf-8", errors="replace") if self.log_path.exists() else ""

    def events(self, name: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.log.splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == name]

    def wait_started(self) -> Self:
        def settled() -> bool:
            return "worker.started" in self.log or self.process.poll() is not None

        wait_until(settled, within_s=30, what="a started worker")
        assert self.process.poll() is None, self.log
        return self

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def wait(self, within_s: float = 20.0) -> int:
        return self.process.wait(within_s)

    def close(self) -> None:
        if self.process.poll() is None:
            self.kill()


class Fleet:
    """Worker processes that share one Redis and one gateway; `own` are further environment variables of each."""

    def __init__(self, redis_url: str, upstream_url: str, *, forked: bool = True, **own: str) -> None:
        self._forked = forked
        self._stack = ExitStack()
        self._logs = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        self._environment = worker_environment(redis_url, upstream_url, **own)
        self.workers: list[WorkerProcess] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers:
            worker.close()
        self._stack.close()

    def start(self, **settings: str | int) -> WorkerProcess:
        """Returns a worker once it takes work. Settings are named without their prefix, as in `lanes="batch=1"`."""
        own = {f"WORKER_{name.upper()}": str(value) for name, value in settings.items()}
        log = self._logs / f"{len(self.workers)}.log"
        worker = WorkerProcess(self._environment | own, log, forked=self._forked)
        self.workers.append(worker)
        return worker.wait_started()
