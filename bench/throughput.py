"""How much one core does: CPU, memory, latency and Redis commands per request, against plain Celery.

`python bench/throughput.py [--quick] [--json] [--runs 5]`. Everything is real: an embedded Valkey, the simulated
gateway in a process of its own with a constant latency, one worker process per row, started anew for every run.

CPU is counted, not time on a clock, so a busy machine changes little; each figure is the median over the runs, and
rows take turns within a run. Load is a closed loop in steady state: so many requests outstanding, each result
replaced by a new request, reached evenly so that there are no waves. With L seconds of latency N calls in flight
are N/L requests a second; L is chosen so that one core can do that, and the peak the gateway saw is printed.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import redis
from throughput_load import Load, Template
from throughput_probe import CommandCounter, Commands, Processes

from worker.devstack import Simulator, embedded_valkey, simulator_process

HERE = Path(__file__).parent
PROMPT = "Summarise the following paragraph in one sentence. " * 20
ENVELOPE: dict[str, Any] = {
    "body": {"model": "gpt-5.4-mini", "input": [{"role": "user", "content": PROMPT}], "max_output_tokens": 64}
}
SETTLE_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """One row: a worker, its task, and how many requests are kept outstanding (0: a queue is drained instead)."""

    name: str
    command: Sequence[str]
    task: str
    queue: str
    stream: str = ""
    ready: str = "bench.ready"
    in_flight: int = 0
    latency_s: float = 0.0
    requests: int
    settings: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What one run of one row measured; medians over runs have the same fields."""

    cpu_ms: float
    requests_per_core_s: float
    peak_mb: float
    peak_in_flight: float = 0.0
    added_p50_ms: float = float("nan")
    added_p99_ms: float = float("nan")
    sent: float
    scripts: float
    inside: float
    idle_sent_s: float
    idle_inside_s: float
    idle_cpu_ms_s: float


def subjects(*, quick: bool) -> list[Subject]:
    celery = [sys.executable, "-m", "celery", "-A", "throughput_celery", "worker"]
    ours = [sys.executable, "-m", "worker", "run"]
    queue = {"task": "responses.create", "queue": "responses.interactive", "stream": "responses:results"}
    few, many = (0.25, 2.0) if quick else (1.0, 5.0)
    return [
        Subject(
            name="Celery no-op (prefork -c 1)",
            command=[*celery, "-c", "1"],
            task="bench.noop",
            queue="bench",
            requests=1000 if quick else 5000,
        ),
        Subject(
            name="Celery + httpx (threads -c 50)",
            command=[*celery, "-P", "threads", "-c", "50"],
            task="bench.ask",
            queue="bench",
            stream="bench:results",
            in_flight=50,
            latency_s=few,
            requests=300 if quick else 1000,
        ),
        *(
            Subject(
                name=f"responses-worker, {in_flight:,} in flight",
                command=ours,
                **queue,
                ready="worker.started",
                in_flight=in_flight,
                latency_s=latency_s,
                requests=requests,
                settings={"WORKER_CONCURRENCY": str(in_flight)},
            )
            for in_flight, latency_s, requests in (
                (50, few, 300 if quick else 1000),
                (1000, many, 1000 if quick else 5000),
            )
        ),
    ]


def measure(subject: Subject, redis_url: str, gateway: Simulator, *, idle_s: float) -> Sample:
    client: Any = redis.Redis.from_url(redis_url)  # pyright: ignore[reportUnknownMemberType]  # untyped kwargs
    client.flushall()
    gateway.configure(latency_median_s=subject.latency_s)
    template = Template.captured(redis_url, task=subject.task, queue=subject.queue, envelope=ENVELOPE)
    load = Load(client, template, subject.stream)
    with _running(subject, redis_url, gateway.url) as pid, Processes(pid) as processes:
        _warm_up(subject, load)
        gateway.reset()
        commands, cpu_s = CommandCounter(client), processes.cpu_s
        latencies = _run(subject, load)
        cpu_ms = (processes.cpu_s - cpu_s) * 1000 / len(latencies)
        per_request, peak_in_flight = commands.since_start().per(len(latencies)), gateway.stats().peak_in_flight
        load.finish(subject.latency_s + 10)
        idle, idle_cpu_ms = _idle(client, processes, idle_s)
        peak_mb = processes.peak_mb
    client.close()
    added = {} if not subject.in_flight else _added(latencies, subject.latency_s)
    return Sample(
        cpu_ms=cpu_ms,
        requests_per_core_s=1000 / cpu_ms,
        peak_mb=peak_mb,
        peak_in_flight=peak_in_flight,
        **asdict(per_request),
        idle_sent_s=idle.sent,
        idle_inside_s=idle.inside,
        idle_cpu_ms_s=idle_cpu_ms,
        **added,
    )


def _warm_up(subject: Subject, load: Load) -> None:
    """Opens the connections, loads the scripts, reaches steady state."""
    if subject.in_flight:
        load.ramp(subject.in_flight, over_s=subject.latency_s)
        load.keep(subject.in_flight)
    else:
        load.enqueue(100)
        load.drain(30)


def _run(subject: Subject, load: Load) -> list[float]:
    if subject.in_flight:
        return load.keep(subject.requests)
    load.enqueue(subject.requests)
    load.drain(120)
    return [0.0] * subject.requests


def _idle(client: Any, processes: Processes, idle_s: float) -> tuple[Commands, float]:
    time.sleep(SETTLE_S)
    commands, cpu_s = CommandCounter(client), processes.cpu_s
    time.sleep(idle_s)
    return commands.since_start().per(idle_s), (processes.cpu_s - cpu_s) * 1000 / idle_s


def _added(latencies: list[float], latency_s: float) -> dict[str, float]:
    added = sorted(total_ms - latency_s * 1000 for total_ms in latencies)
    return {"added_p50_ms": added[len(added) // 2], "added_p99_ms": added[len(added) * 99 // 100]}


@contextmanager
def _running(subject: Subject, redis_url: str, gateway_url: str) -> Generator[int]:
    """The worker, ready for work; its log is shown if it does not get there."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("WORKER_")},
        "BENCH_REDIS_URL": redis_url,
        "BENCH_GATEWAY_URL": gateway_url,
        "PYTHONPATH": os.pathsep.join((str(HERE), str(HERE.parent))),
        "WORKER_REDIS_URL": redis_url,
        "WORKER_UPSTREAM_URL": gateway_url,
        "WORKER_UPSTREAM_API_KEY": "sk-bench",
        "WORKER_HTTP_PORT": "0",
        "WORKER_LOG_FORMAT": "json",
        **subject.settings,
    }
    with tempfile.NamedTemporaryFile() as log:
        process = subprocess.Popen(list(subject.command), env=environment, cwd=HERE, stdout=log, stderr=log)
        try:
            give_up = time.monotonic() + 30
            while subject.ready not in (said := Path(log.name).read_text(encoding="utf-8", errors="replace")):
                if process.poll() is not None or time.monotonic() > give_up:
                    raise RuntimeError(f"{subject.name} did not start:\n{said[-2000:]}")
                time.sleep(0.05)
            yield process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()


def median(samples: Sequence[Sample]) -> Sample:
    rows = [asdict(sample) for sample in samples]
    return Sample(**{name: statistics.median(row[name] for row in rows) for name in rows[0]})


def table(results: Mapping[str, Sample]) -> str:
    header = ("", "peak at", "requests/s", "CPU ms", "peak", "added ms", "", "Redis commands/request", "", "idle/s", "")
    units = ("", "gateway", "per core", "/request", "MB", "p50", "p99", "sent", "in scripts", "sent", "in scripts")
    lines = [header, units]
    for name, one in results.items():
        numbers = (
            f"{one.peak_in_flight:,.0f}" if one.peak_in_flight else "-",
            f"{one.requests_per_core_s:,.0f}",
            f"{one.cpu_ms:.2f}",
            f"{one.peak_mb:.0f}",
            *("-" if ms != ms else f"{ms:.0f}" for ms in (one.added_p50_ms, one.added_p99_ms)),
            f"{one.sent:.1f}",
            f"{one.inside:.1f}",
            f"{one.idle_sent_s:.1f}",
            f"{one.idle_inside_s:.1f}",
        )
        lines.append((name, *numbers))
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=0, help="runs per row (5; with --quick 1)")
    parser.add_argument("--quick", action="store_true", help="short calls, few requests, one run")
    parser.add_argument("--json", action="store_true", help="medians and every run as JSON instead of the table")
    parser.add_argument("--rows", default="", help="only rows whose name contains this")
    options = parser.parse_args()


if __name__ == "__main__":
    main()
