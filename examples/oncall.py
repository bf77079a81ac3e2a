"""An outage, staged: the gateway breaks, is repaired, our key is revoked, and is repaired. `make demo-oncall`.

Everything is real but the gateway: a worker, a Valkey, and a Sentry that is Bugsink where `make test-sentry` has
installed it, else a receiver of ours. What is shown is what on call would see, at the moment they would see it.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from bugsink.server import Bugsink, bugsink, is_installed
from celery import Celery
from rich.console import Console
from rich.table import Table
from support.sentry_receiver import SentryReceiver

from worker.devtools.devstack import Simulator, embedded_valkey, simulator_process

KEY = "sk-demo"
EACH_S = 0.25
START_S = 20.0
SHOWN = {
    "upstream.shut": "yellow",
    "upstream.opened": "green",
    "incident.reported": "bold red",
    "incident.ended": "green",
    "upstream.throttled": "yellow",
}
HIDDEN = {"service", "version", "environment", "host", "pid", "event", "level", "timestamp", "event_id", "runbook"}

console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)


@dataclass(slots=True)
class Stage:
    """The processes that run while the outage is staged."""

    gateway: Simulator
    log: Path
    app: Any
    sent: int = 0
    over: threading.Event = field(default_factory=threading.Event)

    def traffic(self) -> None:
        """Customers: a request every quarter of a second, from three tenants."""
        while not self.over.wait(EACH_S):
            self.sent += 1
            envelope = {
                "body": {"model": "gpt-5.4-mini", "input": [{"role": "user", "content": f"Question {self.sent}"}]},
                "tenant": ("acme", "globex", "initech")[self.sent % 3],
            }
            self.app.send_task("responses.create", args=[envelope], queue="responses.interactive")

    def lines(self) -> Iterator[dict[str, Any]]:
        for line in self.log.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("{"):
                yield json.loads(line)

    def play(self, title: str, seconds: float, shown: int) -> int:
        """Lets time pass and shows the lines that matter as they come; returns how many lines there are."""
        console.rule(f"[bold]{title}")
        give_up = time.monotonic() + seconds
        while time.monotonic() < give_up:
            lines = list(self.lines())
            for line in lines[shown:]:
                show(line)
            shown = len(lines)
            time.sleep(0.2)
        outcomes = Counter(line["outcome"] for line in lines if line["event"] == "request.finished")
        console.print(f"[dim]so far: {self.sent} asked, {dict(outcomes)}[/]")
        return shown


def show(line: Mapping[str, Any]) -> None:
    if line["event"] in SHOWN:
        facts = " ".join(f"{name}={value}" for name, value in line.items() if name not in HIDDEN and value is not None)
        console.print(
            f"[dim]{line['timestamp'][11:19]}[/] [{SHOWN[line['event']]}]{line['event']}[/] {facts}", soft_wrap=True
        )


def main() -> None:
    with ExitStack() as stack:
        logs = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        sentry = (
            stack.enter_context(bugsink(logs / "bugsink")) if is_installed() else stack.enter_context(SentryReceiver())
        )
        valkey = stack.enter_context(embedded_valkey())
        gateway = stack.enter_context(simulator_process({"keys": [KEY], "latency_median_s": 0.2}))
        stage = Stage(gateway, logs / "worker.log", stack.enter_context(Celery("customers", broker=valkey.url)))
        with _worker(stage.log, _environment(valkey.url, gateway.url, sentry.dsn)) as worker:
            metrics = _perform(stage)
            worker.terminate()
            worker.wait()
        console.rule("[bold]The log: one line per request; this is the last that failed")
        failed = [line for line in stage.lines() if line["event"] == "request.finished" and line["outcome"] == "failed"]
        console.print_json(data=failed[-1])
        console.print(_waited(metrics), _issues(sentry), sep="\n")
        console.print("[dim]`responses-worker runbook authentication_failed` says what to do about it.[/]")


def _perform(stage: Stage) -> str:
    """The acts; returns the metrics as they were at the end."""
    customers = threading.Thread(target=stage.traffic)
    customers.start()
    try:
        shown = stage.play("All is well", 3, 0)
        stage.gateway.configure(fault_rates={"503": 1.0})
        shown = stage.play("The gateway answers 503 to everything", 22, shown)
        stage.gateway.configure(fault_rates={})
        shown = stage.play("The gateway is repaired: a probe finds out", 17, shown)
        stage.gateway.configure(revoked_keys=[KEY])
        shown = stage.play("Somebody revokes our key", 15, shown)
        stage.gateway.configure(revoked_keys=[])
        stage.play("The key works again", 8, shown)
        return _scraped(next(line["port"] for line in stage.lines() if line["event"] == "probes.opened"))
    finally:
        stage.over.set()
        customers.join()


def _environment(redis_url: str, upstream_url: str, dsn: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("WORKER_", "SENTRY_"))}
    return inherited | {
        "WORKER_REDIS_URL": redis_url,
        "WORKER_UPSTREAM_URL": upstream_url,
        "WORKER_UPSTREAM_API_KEY": KEY,
        "WORKER_REQUESTS_PER_MINUTE": "6000",
        "WORKER_MAX_ATTEMPTS": "2",
        "WORKER_PATIENCE": "interactive=6s",
        "WORKER_PROBE_INTERVAL": "2s",
        "WORKER_HTTP_PORT": "0",
        "WORKER_LOG_FORMAT": "json",
        "SENTRY_DSN": dsn,
        "SENTRY_ENVIRONMENT": "demo",
    }


@contextmanager
def _worker(log: Path, environment: Mapping[str, str]) -> "Generator[subprocess.Popen[bytes]]":
    command = [sys.executable, "-m", "worker", "run"]
    with (
        log.open("wb") as written,
        subprocess.Popen(command, env=environment, stdout=written, stderr=written) as worker,  # noqa: S603  # our own module
    ):
        try:
            give_up = time.monotonic() + START_S
            while b"worker.started" not in log.read_bytes():
                if worker.poll() is not None or time.monotonic() > give_up:
                    raise SystemExit(log.read_text(encoding="utf-8"))
                time.sleep(0.1)
            yield worker
        finally:
            worker.terminate()


def _scraped(port: int) -> str:
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    return text


def _waited(metrics: str) -> Table:
    table = Table(title="/metrics: what requests waited for, in seconds", title_justify="left")
    table.add_column("reason")
    table.add_column("seconds", justify="right")
    for line in metrics.splitlines():
        if line.startswith("responses_worker_waiting_seconds_total") and float(line.split()[-1]):
            table.add_row(line.split('"')[1], f"{float(line.split()[-1]):.0f}")
    return table


def _issues(sentry: Bugsink | SentryReceiver) -> Table:
    name = "Bugsink" if isinstance(sentry, Bugsink) else "a receiver of ours; `make test-sentry` installs Bugsink"
    table = Table(title=f"Sentry ({name}): the issues on call finds", title_justify="left")
    for column in ("issue", "level", "pages", "events", "failures", "tenants", "what to do"):
        table.add_column(column, justify="right" if column in ("events", "failures", "tenants") else "left")
    for events in _by_issue(sentry):
        impacts = [event["contexts"]["impact"] for event in events]
        failures = sum(impact.get("failures_since_last_event", 0) for impact in impacts)
        tenants = max(impact.get("tenants_affected", 0) for impact in impacts)
        value = events[0]["exception"]["values"][-1]
        remedy = events[0]["contexts"]["runbook"].get("remedy", value["value"])
        page = "yes" if events[0]["tags"]["page"] == "true" else ""
        table.add_row(value["type"], events[0]["level"], page, str(len(events)), str(failures), str(tenants), remedy)
    return table


def _by_issue(sentry: Bugsink | SentryReceiver) -> list[list[dict[str, Any]]]:
    if isinstance(sentry, Bugsink):
        return [sentry.events(issue["id"]) for issue in sentry.issues()]
    issues: dict[str, list[dict[str, Any]]] = {}
    for event in sentry.events():
        issues.setdefault("/".join(event["fingerprint"]), []).append(event)
    return list(issues.values())


if __name__ == "__main__":
    main()
