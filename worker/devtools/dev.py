"""Everything at once on this machine, until a signal: a Valkey, the simulated gateway, a worker and the dashboard."""

import os
import subprocess
import time
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from worker.devtools.devstack import DevstackError, command_process, embedded_valkey, simulator_process

KEY: Final = "sk-dev"
_START_S: Final = 60.0
_TICK_S: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """The processes, and how to reach them."""

    exports: Mapping[str, str]
    """Variables with which every command works here."""
    page: str
    """The dashboard's address, with its token."""
    children: Mapping[str, "subprocess.Popen[bytes]"]

    def fallen(self) -> str:
        """The name of a process that ended by itself; empty while all run."""
        return next((name for name, child in self.children.items() if child.poll() is not None), "")


@contextmanager
def running(*, redis_port: int, page_port: int, rpm: int, log: Path) -> Generator[Running]:
    """Everything that runs, and stops again. `log` gets the worker's lines. Port 0 is any free one.

    Raises DevstackError where something does not start.
    """
    with ExitStack() as stack:
        valkey = stack.enter_context(embedded_valkey(port=redis_port or None))
        gateway = stack.enter_context(simulator_process({"requests_per_minute": rpm, "latency_median_s": 0.4}))
        exports = {
            "WORKER_REDIS_URL": valkey.url,
            "WORKER_UPSTREAM_URL": gateway.url,
            "WORKER_UPSTREAM_API_KEY": KEY,
            "WORKER_HTTP_PORT": "0",  # another program may have port 8080
        }
        own = {name: value for name, value in os.environ.items() if not name.startswith(("WORKER_", "SENTRY_"))}
        environment = {**own, **exports, "PYTHONUNBUFFERED": "1"}
        page_log = log.with_name("dashboard.log")
        worker = stack.enter_context(command_process(["run"], environment | {"WORKER_LOG_FORMAT": "json"}, log))
        page = stack.enter_context(command_process(["dashboard", "--port", str(page_port)], environment, page_log))
        _said(worker, log, "worker.started", "the worker")
        address = _said(page, page_log, "http://", "the dashboard")
        yield Running(exports=exports, page=address, children={"the worker": worker, "the dashboard": page})


def _said(child: "subprocess.Popen[bytes]", log: Path, words: str, name: str) -> str:
    """The line with these words, waited for. Raises DevstackError with what the process said instead."""
    give_up_at = time.monotonic() + _START_S
    while True:
        said = log.read_text(encoding="utf-8", errors="replace")
        line = next((line for line in said.splitlines() if words in line), "")
        if line:
            return line
        if child.poll() is not None or time.monotonic() > give_up_at:
            raise DevstackError(f"{name} did not start: {said.strip()[-400:]}")
        time.sleep(_TICK_S)
