"""A night on call, staged: five incidents, each mended with the commands that its alert and the fleet print.

`make demo-oncall`. A stranger's way from an alert to its cause and its remedy is three commands at most, and each is
printed by the one before; the drill types exactly those, and fails where a way is longer or does not end in repair.
Everything is real but the gateway.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from celery import Celery
from redis import Redis
from rich.console import Console
from rich.table import Table

from worker.devtools.devstack import Simulator, embedded_valkey, simulator_process
from worker.failures.next_command import NEXT
from worker.telemetry.rules import RULES

KEY = "sk-demo"
EACH_S = 0.25
MOST_COMMANDS = 3
SHOWN_LINES = 7
WITHIN_S = 90.0
START_S = 20.0

console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)


@dataclass(slots=True)
class Stage:
    """The processes that run while the night is staged."""

    gateway: Simulator
    redis: Any
    customers: Any
    environment: Mapping[str, str]
    sent: int = 0
    over: threading.Event = field(default_factory=threading.Event)
    helpers: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    def traffic(self) -> None:
        """Customers: a request every quarter of a second, from three tenants."""
        while not self.over.wait(EACH_S):
            self.sent += 1
            self.ask(f"r{self.sent}", tenant=("acme", "globex", "initech")[self.sent % 3])

    def ask(self, request_id: str, *, tenant: str = "acme", lane: str = "interactive") -> None:
        body = {"model": "gpt-5.4-mini", "input": [{"role": "user", "content": "What now?"}]}
        envelope = {"request_id": request_id, "tenant": tenant, "body": body}
        self.customers.send_task("responses.create", args=[envelope], queue=f"responses.{lane}")

    def typed(self, command: str) -> str:
        """Runs a command as it was printed; one that goes on until a signal is left running."""
        console.print(f"\n[bold]$ {command}[/]", markup=True)
        if command.endswith("responses-worker run"):
            self.helpers.append(subprocess.Popen(command, shell=True, env=self.environment, **QUIET))  # noqa: S602  # as it was printed
            return ""
        done = subprocess.run(command, shell=True, env=self.environment, capture_output=True, text=True, check=False)  # noqa: S602  # as it was printed
        lines = [line.rstrip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        last = [line for line in lines[SHOWN_LINES:] if line.startswith(NEXT)]
        console.print(
            "\n".join([*lines[:SHOWN_LINES], *(["..."] if len(lines) > SHOWN_LINES else []), *last]), style="dim"
        )
        return done.stdout

    def status(self) -> dict[str, Any]:
        command = "responses-worker status --json"
        return json.loads(subprocess.check_output(command, shell=True, env=self.environment))  # noqa: S602  # our own

    def is_shut(self, state: str = "") -> bool:
        gate = (self.redis.hget("responses:quota:default", "gate") or b"").decode()
        return gate == state if state else bool(gate)

    def answered(self, request_id: str, tenant: str = "acme") -> bool:
        return self.redis.hget(f"responses:request:{tenant}:{request_id}", "state") == b"completed"

    def wait(self, what: str, met: Callable[[], bool]) -> None:
        """Ends the drill where this does not come to pass."""
        give_up = time.monotonic() + WITHIN_S
        while not met():
            if time.monotonic() > give_up:
                raise SystemExit(f"the drill failed: {what}")
            time.sleep(0.2)


QUIET: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """One alert: its cause, what a person does beside typing, and how one sees that it is over."""

    title: str
    alert: str
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    breaks: Callable[[Stage], None]
    shows: Callable[[Stage], bool]
    by_hand: Callable[[Stage], None] = lambda _: None
    """For example a new key in its place; nothing that a command of ours could do."""
    mended: Callable[[Stage], bool]

    def staged(self, stage: Stage) -> tuple[str, int, float]:
        """Returns title, number of commands, and the time it took from the alert on."""
        console.rule(f"[bold]{self.title}")
        self.breaks(stage)
        stage.wait(f"{self.alert} has a cause", lambda: self.shows(stage))
        (rule,) = (rule for rule in RULES if rule.alert == self.alert)
        told = rule.rendered()["annotations"]
        summary = re.sub(r"{{ \$labels\.(\w+) }}", lambda found: self.labels[found[1]], told["summary"])
        console.print(f"[bold red]{self.alert}[/] ({rule.severity}): {summary}\n{told['description']}")
        began, count = time.monotonic(), self._followed(stage, re.findall(r"`([^`]+)`", told["description"]))
        stage.wait(f"{self.title} is mended", lambda: self.mended(stage))
        took_s = time.monotonic() - began
        console.print(f"[bold green]over after {count} commands and {took_s:.0f} s[/]\n")
        return self.title, count, took_s

    def _followed(self, stage: Stage, named: list[str]) -> int:
        """Types what is named, until nothing more is; returns the number of commands."""
        for count in range(1, MOST_COMMANDS + 1):
            if count == MOST_COMMANDS:
                self.by_hand(stage)
            named = [line.removeprefix(NEXT) for line in stage.typed(named[0]).splitlines() if line.startswith(NEXT)]
            if not named:
                return count
        raise SystemExit(f"the drill failed: {self.title} takes more than {MOST_COMMANDS} commands")


def requests_fail(stage: Stage) -> None:
    """An hour's trouble in seconds: the gateway fails everything, and is repaired."""
    stage.gateway.configure(fault_rates={"503": 1.0})
    for number in range(20):
        stage.ask(f"failed-{number}")
    stage.wait("twenty requests failed", lambda: stage.redis.xlen("responses:failed") >= 20)  # noqa: PLR2004  # those
    stage.gateway.configure(fault_rates={})
    stage.wait(
        "the gateway is probed, and work goes on", lambda: not stage.is_shut() and stage.status()["verdict"]["ok"]
    )


def pause(stage: Stage) -> None:
    subprocess.run(["responses-worker", "pause", "--reason", "invoice 17"], env=stage.environment, check=True, **QUIET)  # noqa: S607  # our own


def key_in_the_way(stage: Stage) -> None:
    """Somebody else wrote into the key of a request: its message cannot be worked on."""
    stage.redis.set("responses:request:acme:order-9", "not ours")
    stage.ask("order-9")


def reports(stage: Stage) -> None:
    for number in range(5):
        stage.ask(f"report-{number}", lane="reports")


NIGHT = (
    Incident(
        title="Somebody revokes our key",
        alert="ResponsesWorkerUpstreamShut",
        labels={"state": "authentication_failed"},
        breaks=lambda stage: stage.gateway.configure(revoked_keys=[KEY]),
        shows=lambda stage: stage.is_shut("authentication_failed"),
        by_hand=lambda stage: stage.gateway.configure(revoked_keys=[]),
        mended=lambda stage: stage.status()["verdict"]["text"].startswith("moving"),
    ),
    Incident(
        title="A colleague paused the fleet and went home",
        alert="ResponsesWorkerPaused",
        breaks=pause,
        shows=lambda stage: stage.status()["verdict"]["command"] == "responses-worker runbook paused",
        mended=lambda stage: stage.status()["verdict"]["text"].startswith("moving"),
    ),
    Incident(
        title="A lane that nobody serves",
        alert="ResponsesWorkerLaneUnserved",
        labels={"lane": "reports"},
        breaks=reports,
        shows=lambda stage: stage.status()["lanes"].get("reports", {}).get("state") == "standing",
        mended=lambda stage: all(stage.answered(f"report-{number}") for number in range(5)),
    ),
    Incident(
        title="The gateway failed requests, and is well again",
        alert="ResponsesWorkerErrorBudgetBurns",
        breaks=lambda _: console.print("[dim]waiting until the failures are a minute ago[/]"),
        shows=lambda stage: "redrive" in stage.status()["verdict"]["command"],
        mended=lambda stage: all(stage.answered(f"failed-{number}") for number in range(20)),
    ),
    Incident(
        title="A message that no worker can take",
        alert="ResponsesWorkerDeadLetters",
        breaks=key_in_the_way,
        shows=lambda stage: stage.redis.xlen("responses:dead") == 1,
        by_hand=lambda stage: stage.redis.delete("responses:request:acme:order-9"),
        mended=lambda stage: stage.answered("order-9"),
    ),
)


def main() -> None:
    with ExitStack() as stack:
        logs = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        valkey = stack.enter_context(embedded_valkey())
        gateway = stack.enter_context(simulator_process({"keys": [KEY], "latency_median_s": 0.2}))
        environment = _environment(valkey.url, gateway.url)
        redis: Any = stack.enter_context(Redis.from_url(valkey.url))
        stage = Stage(gateway, redis, stack.enter_context(Celery("customers", broker=valkey.url)), environment)
        with _worker(logs / "worker.log", environment):
            done = _perform(stage)
        console.print(_table(done))


def _perform(stage: Stage) -> list[tuple[str, int, float]]:
    """The night, with customers all through it."""
    customers = threading.Thread(target=stage.traffic)
    customers.start()
    try:
        requests_fail(stage)
        return [incident.staged(stage) for incident in NIGHT]
    finally:
        stage.over.set()
        customers.join()
        for helper in stage.helpers:
            os.killpg(helper.pid, signal.SIGTERM)  # as Ctrl-C in that terminal would
            helper.wait()


def _environment(redis_url: str, upstream_url: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("WORKER_", "SENTRY_"))}
    return inherited | {
        "COLUMNS": "140",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "WORKER_REDIS_URL": redis_url,
        "WORKER_UPSTREAM_URL": upstream_url,
        "WORKER_UPSTREAM_API_KEY": KEY,
        "WORKER_REQUESTS_PER_MINUTE": "6000",
        "WORKER_MAX_ATTEMPTS": "1",
        "WORKER_PATIENCE": "interactive=deadline",
        "WORKER_HTTP_PORT": "0",
        "WORKER_LOG_FORMAT": "json",
    }


@contextmanager
def _worker(log: Path, environment: Mapping[str, str]) -> Generator[None]:
    command = [sys.executable, "-m", "worker", "run"]
    with log.open("wb") as out, subprocess.Popen(command, env=environment, stdout=out, stderr=out) as worker:  # noqa: S603  # our own module
        try:
            give_up = time.monotonic() + START_S
            while b"worker.started" not in log.read_bytes():
                if worker.poll() is not None or time.monotonic() > give_up:
                    raise SystemExit(log.read_text(encoding="utf-8"))
                time.sleep(0.1)
            yield
        finally:
            worker.terminate()


def _table(done: list[tuple[str, int, float]]) -> Table:
    table = Table(title="The night", title_justify="left")
    for column in ("incident", "commands", "from the alert to its end"):
        table.add_column(column, justify="left" if column == "incident" else "right")
    for title, count, took_s in done:
        table.add_row(title, str(count), f"{took_s:.0f} s")
    return table


if __name__ == "__main__":
    main()
