"""One run's world: an embedded Valkey, the simulated gateway, real worker processes, and what came of it.

Everything is a process of its own at the same priority. On two cores the gateway must not starve behind the fleet
that it measures, nor the fleet behind it, so each run tells how busy the machine was.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import psutil
import redis

from bench import ROOT
from bench.scoreboard_draws import Body, messages
from worker.devtools.devstack import Simulator, embedded_valkey, simulator_process
from worker.devtools.simulator import ReceivedCall, Stats

KEY: Final = "sk-bench"
RESULTS: Final = "responses:results"
OWN_BURST_S: Final = 2.0
LOOK_S: Final = 0.05
PROGRESS_S: Final = 10.0
START_S: Final = 60.0
STALLED_S: Final = 100.0
"""A drain in which nothing moves for so long is over: longer than any incident."""
GIVE_UP_S: Final = 900.0
LEAVE_S: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """The remains when the processes are gone."""

    enqueued: int
    results: Sequence[Mapping[str, Any]]
    calls: Sequence[ReceivedCall]
    scripts_s: float
    """Script calls a second from the first call to the last."""
    busy: float
    """Of all cores, of 1, in that time; what else runs on the machine counts."""
    errors: Sequence[str]
    """Names of the workers' log events of level error."""


@dataclass(slots=True)
class Worker:
    process: "subprocess.Popen[bytes]"
    log: Path

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None

    def said(self, text: str) -> bool:
        return text in self.log.read_text(encoding="utf-8", errors="replace")


@dataclass(slots=True)
class World:
    """Servers that run, workers to start and stop, and messages to enqueue."""

    name: str
    gateway: Simulator
    redis_url: str
    redis: Any
    logs: Path
    settings: dict[str, str]
    """Of every worker; names without their prefix."""
    workers: list[Worker] = field(default_factory=list[Worker])
    enqueued: int = 0
    _began: float = field(default_factory=time.monotonic)
    _cpu: Any = None
    _scripts: int = 0

    def start(self, count: int, **settings: str) -> list[Worker]:
        """So many `responses-worker run`, ready for work."""
        own = {f"WORKER_{name.upper()}": value for name, value in {**self.settings, **settings}.items()}
        return self.spawn(count, [sys.executable, "-m", "worker", "run"], own, ready="worker.started")

    def spawn(self, count: int, command: Sequence[str], settings: Mapping[str, str], *, ready: str) -> list[Worker]:
        """Processes that have said `ready` on their standard output."""
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("WORKER_")},
            "BENCH_REDIS_URL": self.redis_url,
            "BENCH_GATEWAY_URL": self.gateway.url,
            "PYTHONUNBUFFERED": "1",
            "WORKER_REDIS_URL": self.redis_url,
            "WORKER_UPSTREAM_URL": self.gateway.url,
            "WORKER_UPSTREAM_API_KEY": KEY,
            "WORKER_BURST_SECONDS": str(OWN_BURST_S),
            "WORKER_HTTP_PORT": "0",
            "WORKER_LOG_FORMAT": "json",
            **settings,
        }
        started: list[Worker] = []
        for _ in range(count):
            log = self.logs / f"{len(self.workers)}.log"
            with log.open("wb") as out:
                process = subprocess.Popen(list(command), env=environment, cwd=ROOT, stdout=out, stderr=out)
            started.append(Worker(process, log))
            self.workers.append(started[-1])
        self.until(lambda: all(worker.said(ready) or worker.ended for worker in started), START_S)
        for worker in started:
            if worker.ended or not worker.said(ready):
                raise RuntimeError(f"{self.name}: a worker did not start:\n{worker.log.read_text()[-2000:]}")
        return started

    def stop(self, workers: Iterable[Worker]) -> None:
        """SIGTERM, and nothing else: how they leave is part of what is measured."""
        for worker in workers:
            worker.process.terminate()

    def enqueue(self, bodies: Iterable[Body], *, lane: str = "interactive", task: str = "responses.create") -> None:
        """Everything at once, as Celery writes it."""
        self.ask([{"body": body} for body in bodies], lane=lane, task=task)

    def ask(
        self,
        envelopes: Sequence[Mapping[str, Any]],
        *,
        lane: str = "interactive",
        task: str = "responses.create",
        enqueued_at: datetime | None = None,
    ) -> None:
        """The same with more than a body to each; the client's stamp is `enqueued_at`, or now."""
        queue = f"responses.{lane}"
        stamp = (enqueued_at or datetime.now(UTC)).isoformat(timespec="milliseconds")
        named = [
            {"request_id": f"r{number}", "enqueued_at": stamp, **envelope}
            for number, envelope in enumerate(envelopes, self.enqueued)
        ]
        if self._cpu is None:
            self._cpu, self._scripts = _cpu_times(), self._script_calls()
        self.redis.lpush(queue, *messages(self.redis_url, task=task, queue=queue, envelopes=named))
        self.enqueued += len(named)
        if len(named) > 1:
            self.say(f"{len(named)} enqueued in {lane}")

    def until(self, check: Callable[[], Any], within_s: float = GIVE_UP_S) -> bool:
        """Whether the check came true in time; tells how far everything is meanwhile."""
        told = time.monotonic()
        give_up = told + within_s
        while not check():
            now = time.monotonic()
            if now > give_up:
                self.say(f"gave up after {within_s:.0f} s")
                return False
            if now - told > PROGRESS_S:
                told = now
                self.tell()
            time.sleep(LOOK_S)
        return True

    def drain(self, done: Callable[[], Any] | None = None) -> None:
        """Waits until everything that was enqueued is answered, or `done`, for as long as anything moves."""
        seen, moved = (-1, -1), time.monotonic()

        def over() -> bool:
            nonlocal seen, moved
            now_seen = (self.answered, self.stats.calls)
            if now_seen != seen:
                seen, moved = now_seen, time.monotonic()
            return bool(done() if done else self.answered >= self.enqueued) or time.monotonic() > moved + STALLED_S

        self.until(over)
        self.tell()

    @property
    def answered(self) -> int:
        return self.redis.xlen(RESULTS)

    def results(self) -> list[Mapping[str, Any]]:
        return [json.loads(fields[b"result"]) for _, fields in self.redis.xrange(RESULTS)]

    @property
    def stats(self) -> Stats:
        return self.gateway.stats()

    @property
    def since_first_call_s(self) -> float:
        """0 before there is one."""
        first = next(iter(self.gateway.calls()), None)
        return time.time() - first.wall if first else 0.0

    def tell(self) -> None:
        stats = self.stats
        scale, gate = self.redis.hmget("responses:quota:default", "scale", "gate")
        state = f", scale {float(scale):.3g}{f', {gate.decode()}' if gate else ''}" if scale else ""
        self.say(f"{self.answered}/{self.enqueued} answered, {stats.calls} calls {stats.by_status}{state}")

    def say(self, text: str) -> None:
        print(f"[{self.name}] {time.monotonic() - self._began:5.0f} s: {text}", file=sys.stderr, flush=True)

    def record(self) -> Record:
        """Everything that came of it; call it while the servers run."""
        calls = self.gateway.calls()
        span_s = max(1e-9, calls[-1].at_s - calls[0].at_s) if calls else 1e-9
        then, now = self._cpu or _cpu_times(), _cpu_times()
        return Record(
            enqueued=self.enqueued,
            results=self.results(),
            calls=calls,
            scripts_s=(self._script_calls() - self._scripts) / span_s,
            busy=(now[0] - then[0]) / max(1e-9, now[1] - then[1]),
            errors=[name for worker in self.workers for name in _errors(worker.log)],
        )

    def _script_calls(self) -> int:
        return self.redis.info("commandstats").get("cmdstat_evalsha", {}).get("calls", 0)


@contextmanager
def world(name: str, gateway: Mapping[str, Any], **settings: str) -> Generator[World]:
    """Servers with nothing in them; afterwards every process is gone."""
    with ExitStack() as stack:
        logs = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="scoreboard-")))
        valkey = stack.enter_context(embedded_valkey())
        simulator = stack.enter_context(simulator_process(gateway))
        client: Any = redis.Redis.from_url(valkey.url)  # pyright: ignore[reportUnknownMemberType]  # untyped kwargs
        stack.callback(client.close)
        stage = World(name, simulator, valkey.url, client, logs, settings)
        try:
            yield stage
        finally:
            _end(stage.workers)


def _end(workers: Sequence[Worker]) -> None:
    for worker in workers:
        worker.process.terminate()
    give_up = time.monotonic() + LEAVE_S
    for worker in workers:
        try:
            worker.process.wait(max(0.0, give_up - time.monotonic()))
        except subprocess.TimeoutExpired:
            worker.process.kill()


def _errors(log: Path) -> list[str]:
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines() if line.startswith("{")]
    return [str(line["event"]) for line in lines if line.get("level") in ("error", "critical")]


def _cpu_times() -> tuple[float, float]:
    """Seconds in which some core was busy, and seconds in all."""
    times: Any = psutil.cpu_times()  # more fields on Linux than its type says
    idle = times.idle + times.iowait
    return sum(times) - idle, sum(times)
