"""The rows of the throughput bench: which workers under which load, and one measurement of one of them."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import redis

from bench import ROOT
from bench.throughput_load import Load, Template, Times
from bench.throughput_probe import CommandCounter, Commands, Processes
from worker.devtools.devstack import Simulator

FEW: Final = 50
MANY: Final = 1000
FEW_ROW: Final = f"responses-worker, {FEW} in flight"
MANY_ROW: Final = f"responses-worker, {MANY:,} in flight"
SPREAD: Final = 0.1
"""Of latencies, as the sigma of their logarithm."""
PROMPT: Final = "Summarise the following paragraph in one sentence. " * 20
_START_S, _STOP_S, _SETTLE_S = 30.0, 15.0, 1.0
_CELERY: Final = (sys.executable, "-m", "celery", "-A", "bench.throughput_celery", "worker")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A worker, its task, and how many requests are kept outstanding (0: a queue of no-op tasks is drained)."""

    name: str
    command: Sequence[str]
    task: str
    queue: str
    stream: str = ""
    ready: str = "bench.ready"
    """The log's words once it takes work."""
    outstanding: int = 0
    latency_s: float = 0.0
    requests: int
    settings: Mapping[str, str] = field(default_factory=dict[str, str])
    folder: Path = ROOT
    """Of the checkout whose worker it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The measures of one run of one row; None where one has no meaning. `sent` to `inside` are per request."""

    cpu_ms: float
    requests_per_core_s: float
    peak_mb: float
    sent: float
    scripts: float
    inside: float
    idle_sent_s: float
    idle_inside_s: float
    idle_cpu_ms_s: float
    starved: float
    """Share of the time in which the worker was ready to run and other processes had the CPU."""
    peak_in_flight: float | None = None
    added_p50_ms: float | None = None
    added_p99_ms: float | None = None


RECIPE: Final = Row(
    name="Celery + httpx, threads -c 100",
    command=[*_CELERY, "-P", "threads", "-c", "100"],
    task="bench.ask",
    queue="bench",
    stream="bench:results",
    requests=0,
)
"""The first version that people write of this service."""

OURS: Final = Row(
    name="responses-worker",
    command=(sys.executable, "-m", "worker", "run"),
    task="responses.create",
    queue="responses.interactive",
    stream="responses:results",
    ready="worker.started",
    requests=0,
)


def rows(*, quick: bool) -> list[Row]:
    few_s, many_s = (0.5, 2.5) if quick else (1.0, 5.0)
    few_requests, many_requests = (200, 1000) if quick else (1000, 5000)
    return [
        Row(  # prefork is Celery's default pool, one child the least it can have
            name="Celery no-op, prefork -c 1",
            command=[*_CELERY, "-c", "1"],
            task="bench.noop",
            queue="bench",
            requests=many_requests,
        ),
        Row(
            name=f"Celery + httpx, threads -c {FEW}",
            command=[*_CELERY, "-P", "threads", "-c", str(FEW)],
            task="bench.ask",
            queue="bench",
            stream="bench:results",
            outstanding=FEW,
            latency_s=few_s,
            requests=few_requests,
        ),
        _ours(FEW_ROW, FEW, few_s, few_requests),
        _ours(MANY_ROW, MANY, many_s, many_requests),
    ]


def _ours(name: str, in_flight: int, latency_s: float, requests: int) -> Row:
    return replace(
        OURS,
        name=name,
        outstanding=in_flight,
        latency_s=latency_s,
        requests=requests,
        # A known rate far above the load: an unknown one would be learned, from slow to fast, during the run.
        settings={"WORKER_CONCURRENCY": str(in_flight), "WORKER_REQUESTS_PER_MINUTE": "1000000"},
    )


def measure(row: Row, redis_url: str, gateway: Simulator, *, idle_s: float) -> Sample:
    """Starts the row's worker, measures it under load and idle, and stops it. The server is emptied before."""
    # Protocol 2, because replies of XREAD differ in shape; one connection, because its commands are not counted.
    client: Any = redis.Redis.from_url(redis_url, protocol=2, single_connection_client=True)  # pyright: ignore[reportUnknownMemberType]  # untyped kwargs
    client.flushall()
    gateway.configure(latency_median_s=row.latency_s, latency_sigma=SPREAD)
    template = Template.captured(redis_url, task=row.task, queue=row.queue, prompt=PROMPT)
    load = Load(client, template, row.stream)
    with running(row, redis_url, gateway.url) as pid, Processes(pid) as processes:
        _warm_up(row, load)
        gateway.reset()
        counter, cpu_s, waited_s, started = (
            CommandCounter(client),
            processes.cpu_s,
            processes.waited_s,
            time.monotonic(),
        )
        times = _run(row, load)
        cpu_ms = (processes.cpu_s - cpu_s) * 1000 / row.requests
        starved = (processes.waited_s - waited_s) / (time.monotonic() - started)
        commands = counter.since_start().per(row.requests)
        load.finish(within_s=3 * row.latency_s)
        added, peak = (_added(times, gateway), gateway.stats().peak_in_flight) if row.outstanding else ({}, None)
        idle, idle_cpu_ms_s = _idle(client, processes, idle_s)
    client.close()
    return Sample(
        cpu_ms=cpu_ms,
        requests_per_core_s=1000 / cpu_ms,
        peak_mb=processes.peak_mb,
        **asdict(commands),
        idle_sent_s=idle.sent,
        idle_inside_s=idle.inside,
        idle_cpu_ms_s=idle_cpu_ms_s,
        starved=starved,
        peak_in_flight=peak,
        **added,
    )


def _warm_up(row: Row, load: Load) -> None:
    """Opens connections, loads scripts, reaches steady state."""
    if row.outstanding:
        load.ramp(row.outstanding, over_s=row.latency_s)
        load.keep(row.outstanding)
    else:
        load.enqueue(100)
        load.drain()


def _run(row: Row, load: Load) -> Times:
    if row.outstanding:
        return load.keep(row.requests)
    load.enqueue(row.requests)
    load.drain()
    return {}


def _idle(client: Any, processes: Processes, idle_s: float) -> tuple[Commands, float]:
    time.sleep(_SETTLE_S)
    counter, cpu_s = CommandCounter(client), processes.cpu_s
    time.sleep(idle_s)
    return counter.since_start().per(idle_s), (processes.cpu_s - cpu_s) * 1000 / idle_s


def _added(times: Times, gateway: Simulator) -> dict[str, float]:
    """The time that the worker and its queue added to the gateway's own for each request."""
    taken_ms = {call.tag: call.duration_s * 1000 for call in gateway.calls() if call.tag and call.duration_s}
    added = sorted(total_ms - taken_ms[request_id] for request_id, total_ms in times.items() if request_id in taken_ms)
    return {"added_p50_ms": added[len(added) // 2], "added_p99_ms": added[len(added) * 99 // 100]}


@contextmanager
def running(row: Row, redis_url: str, gateway_url: str) -> Generator[int]:
    """The worker's process id once it takes work. Raises RuntimeError with the end of its log if it does not."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("WORKER_")},
        "BENCH_REDIS_URL": redis_url,
        "BENCH_GATEWAY_URL": gateway_url,
        "WORKER_REDIS_URL": redis_url,
        "WORKER_UPSTREAM_URL": gateway_url,
        "WORKER_UPSTREAM_API_KEY": "sk-bench",
        "WORKER_HTTP_PORT": "0",
        "WORKER_LOG_FORMAT": "json",
        **row.settings,
    }
    with tempfile.NamedTemporaryFile() as log:
        process = subprocess.Popen(row.command, env=environment, cwd=row.folder, stdout=log, stderr=log)
        try:
            _wait_ready(row, process, Path(log.name))
            yield process.pid
        finally:
            _stop(process)


def _wait_ready(row: Row, process: "subprocess.Popen[bytes]", log: Path) -> None:
    give_up = time.monotonic() + _START_S
    while row.ready not in (said := log.read_text(encoding="utf-8", errors="replace")):
        if process.poll() is not None or time.monotonic() > give_up:
            raise RuntimeError(f"{row.name} did not start:\n{said[-2000:]}")
        time.sleep(0.05)


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
