"""The cost of the fleet's own picture: the same worker with it and without it, one after the other.

Without it a worker does not register, counts nothing for the history, adds nothing to the accounts and is not scraped.
CPU is that of the worker's process and of Valkey's main thread together.
"""

import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.client import HTTPConnection
from typing import Any, Final

import redis
from support.redis_parts import free_port

from bench.throughput_load import Load, Template
from bench.throughput_probe import CommandCounter, Processes
from bench.throughput_rows import FEW_ROW, PROMPT, Row, rows, running
from worker.devtools.devstack import Simulator, embedded_valkey, simulator_process

IN_FLIGHT: Final = 100
LATENCY_S: Final = 0.5
SCRAPED_EACH_S: Final = 5.0
BAR_MS: Final = 0.05
BAR_COMMANDS: Final = 2.0
_BLIND: Final = """
import asyncio
from worker.storage import commands
from worker.telemetry.tally import Tally

plain = commands._source
begin = "local function account(key, arg)\\n"
commands._source = lambda name: plain(name).replace(begin, begin + "  do return end\\n")
nothing = lambda *_, **__: None
Tally.answered = Tally.claimed = Tally.called = nothing

from worker.operations.registry import Registrar
from worker.queue.usage import Used

async def run(self):
    await asyncio.Event().wait()

Registrar.run, Used.counts = run, lambda *_, **__: ""

from worker.__main__ import main
import sys
sys.argv = ["responses-worker", "run"]
main()
"""
"""A worker that tells nobody what it does."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Per request."""

    worker_ms: float
    valkey_ms: float
    commands: float


def fleet(*, quick: bool) -> list[str]:
    """Pairs of runs; the difference of the best against the bars, since what else a machine does only adds."""
    requests, pairs = (500, 2) if quick else (2000, 8)
    seeing, blind = list[Cost](), list[Cost]()
    with embedded_valkey() as valkey, simulator_process() as gateway:
        for _ in range(pairs):
            blind.append(_measured(valkey.url, gateway, requests, sees=False))
            seeing.append(_measured(valkey.url, gateway, requests, sees=True))
    worker, valkey = (_more(seeing, blind, name) for name in ("worker_ms", "valkey_ms"))
    commands, plain = _more(seeing, blind, "commands"), min(cost.worker_ms + cost.valkey_ms for cost in blind)
    said = (
        f"registry, history, accounts and scraping: {worker + valkey:+.3f} ms of CPU a request (worker {worker:+.3f}, "
        f"Valkey {valkey:+.3f}) on {plain:.2f}, the best of {pairs} runs each"
    )
    return [
        _bar(met=worker + valkey <= BAR_MS, said=f"{said} (bar {BAR_MS})"),
        _bar(
            met=commands <= BAR_COMMANDS,
            said=f"and {commands:+.2f} Redis commands a request, inside scripts too (bar {BAR_COMMANDS:.0f})",
        ),
    ]


def _more(seeing: list[Cost], blind: list[Cost], name: str) -> float:
    return min(getattr(cost, name) for cost in seeing) - min(getattr(cost, name) for cost in blind)


def _bar(*, met: bool, said: str) -> str:
    return f"{'met' if met else 'MISSED':7}{said}"


def _measured(redis_url: str, gateway: Simulator, requests: int, *, sees: bool) -> Cost:
    """One worker under load, from the moment when all its places are taken."""
    client: Any = redis.Redis.from_url(redis_url, protocol=2, single_connection_client=True)  # pyright: ignore[reportUnknownMemberType]  # untyped kwargs
    client.flushall()
    gateway.configure(latency_median_s=LATENCY_S, latency_sigma=0.1)
    port = free_port()
    row = _row(port, sees=sees)
    template = Template.captured(redis_url, task=row.task, queue=row.queue, prompt=PROMPT)
    load = Load(client, template, row.stream)
    with running(row, redis_url, gateway.url) as pid, Processes(pid) as processes, _scraped(port if sees else None):
        load.ramp(IN_FLIGHT, over_s=LATENCY_S)
        load.keep(2 * IN_FLIGHT)
        counter, cpu_s, valkey_s = CommandCounter(client), processes.cpu_s, _valkey_s(client)
        load.keep(requests)
        spent, served = processes.cpu_s - cpu_s, _valkey_s(client) - valkey_s
        commands = counter.since_start()
        load.finish(within_s=10 * LATENCY_S)
    client.close()
    return Cost(spent * 1000 / requests, served * 1000 / requests, (commands.sent + commands.inside) / requests)


def _row(port: int, *, sees: bool) -> Row:
    ours = next(row for row in rows(quick=True) if row.name == FEW_ROW)
    settings = {**ours.settings, "WORKER_CONCURRENCY": str(IN_FLIGHT), "WORKER_HTTP_PORT": str(port)}
    return replace(ours, settings=settings, command=ours.command if sees else (sys.executable, "-c", _BLIND))


def _valkey_s(client: Any) -> float:
    spent = client.info("cpu")
    return spent["used_cpu_user_main_thread"] + spent["used_cpu_sys_main_thread"]


@contextmanager
def _scraped(port: int | None) -> Generator[None]:
    """Prometheus asks meanwhile."""
    over = threading.Event()

    def scrape() -> None:
        while port and not over.wait(SCRAPED_EACH_S):
            connection = HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/metrics")
            connection.getresponse().read()
            connection.close()

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
