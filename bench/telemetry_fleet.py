"""The cost of the fleet's own picture: one worker, with it and without it in turn, a few seconds each.

Without it the worker does not register, counts nothing for the history, adds nothing to the accounts, is not scraped.
Both see the same machine, whatever else that does. CPU is that of the worker's process and of Valkey's main thread. On
a busy machine the difference drowns in the noise, and its parts say more (`bench.telemetry_parts`).
"""

import os
import signal
import statistics
import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Final

import redis
from support.redis_parts import free_port

from bench.telemetry_parts import parts
from bench.throughput_load import Load, Template
from bench.throughput_probe import CommandCounter
from bench.throughput_rows import FEW_ROW, PROMPT, Row, rows, running
from worker.devtools.devstack import embedded_valkey, simulator_process

IN_FLIGHT: Final = 100
LATENCY_S: Final = 0.4
TURN: Final = 400
"""Requests of one turn: two seconds, in which a worker reports once."""
BAR_MS: Final = 0.05
BAR_COMMANDS: Final = 2.0
SWITCH: Final = signal.SIGRTMIN + 1
_BLINKING: Final = f"""
import signal, sys
from worker.storage import commands

plain = commands._source
begin = "local function account(key, arg)\\n"
commands._source = lambda name: plain(name).replace(begin, begin + "  if arg.counts == '' then return end\\n")

from worker.operations.registry import Registrar
from worker.queue.usage import Used
from worker.telemetry.tally import Tally

sees = True

def switch(*_):
    global sees
    sees = not sees

def blinking(owner, name, blind):
    whole = getattr(owner, name)
    setattr(owner, name, lambda *args, **given: whole(*args, **given) if sees else blind())

async def nothing():
    pass

for name in ("answered", "claimed", "called"):
    blinking(Tally, name, lambda: None)
blinking(Registrar, "report", nothing)
blinking(Used, "counts", lambda: "")
signal.signal({int(SWITCH)}, switch)
sys.argv = ["responses-worker", "run"]

from worker.__main__ import main
main()
"""
"""A worker that tells what it does until it gets the signal, and again after the next."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Per request."""

    worker_ms: float
    valkey_ms: float
    commands: float


def fleet(*, quick: bool) -> list[str]:
    """Turns of both kinds; the median of the differences of neighbours, against the bars."""
    pairs = _pairs(4 if quick else 10)
    worker, valkey = _median(pairs, "worker_ms"), _median(pairs, "valkey_ms")
    commands = _median(pairs, "commands")
    plain = statistics.median(blind.worker_ms + blind.valkey_ms for _, blind in pairs)
    said = (
        f"registry, history, accounts and scraping: {worker + valkey:+.3f} ms of CPU a request (worker {worker:+.3f}, "
        f"Valkey {valkey:+.3f}) on {plain:.2f}; medians of {len(pairs)} pairs, standard error {_error(pairs):.3f}"
    )
    told = f"and {commands:+.2f} Redis commands a request, inside scripts too (bar {BAR_COMMANDS:.0f})"
    if _error(pairs) > BAR_MS / 2:
        return [parts(), f"{'noisy':7}{said}", f"{'noisy':7}{told}"]
    return [
        parts(),
        _bar(met=worker + valkey <= BAR_MS, said=f"{said} (bar {BAR_MS})"),
        _bar(met=commands <= BAR_COMMANDS, said=told),
    ]


def _median(pairs: list[tuple[Cost, Cost]], name: str) -> float:
    return statistics.median(getattr(seeing, name) - getattr(blind, name) for seeing, blind in pairs)


def _error(pairs: list[tuple[Cost, Cost]]) -> float:
    """Of the median, for differences that are spread normally."""
    more = [seeing.worker_ms + seeing.valkey_ms - blind.worker_ms - blind.valkey_ms for seeing, blind in pairs]
    return 1.25 * statistics.stdev(more) / len(more) ** 0.5


def _bar(*, met: bool, said: str) -> str:
    return f"{'met' if met else 'MISSED':7}{said}"


def _pairs(count: int) -> list[tuple[Cost, Cost]]:
    """One worker under load; each pair is a turn with the picture and the turn after it, without."""
    with embedded_valkey() as valkey, simulator_process() as gateway:
        # Protocol 2, because replies of XREAD differ in shape; one connection, because its commands are not counted.
        client: Any = redis.Redis.from_url(valkey.url, protocol=2, single_connection_client=True)  # pyright: ignore[reportUnknownMemberType]  # untyped kwargs
        gateway.configure(latency_median_s=LATENCY_S, latency_sigma=0.1)
        port = free_port()
        row = _row(port)
        template = Template.captured(valkey.url, task=row.task, queue=row.queue, prompt=PROMPT)
        load = Load(client, template, row.stream)
        with running(row, valkey.url, gateway.url) as pid:
            load.ramp(IN_FLIGHT, over_s=LATENCY_S)
            load.keep(TURN)
            pairs: list[tuple[Cost, Cost]] = []
            for _ in range(count):
                seeing = _turn(load, client, pid, port)
                os.kill(pid, SWITCH)
                blind = _turn(load, client, pid, None)
                os.kill(pid, SWITCH)
                pairs.append((seeing, blind))
            load.finish(within_s=10 * LATENCY_S)
        client.close()
    return pairs


def _turn(load: Load, client: Any, pid: int, scraped: int | None) -> Cost:
    """The cost of the next requests; Prometheus asks once meanwhile, which is more often than it would."""
    counter, cpu_s, valkey_s = CommandCounter(client), _cpu_s(pid), _valkey_s(client)
    if scraped:
        _scrape(scraped)
    load.keep(TURN)
    spent, served, commands = _cpu_s(pid) - cpu_s, _valkey_s(client) - valkey_s, counter.since_start()
    return Cost(spent * 1000 / TURN, served * 1000 / TURN, (commands.sent + commands.inside) / TURN)


def _row(port: int) -> Row:
    ours = next(row for row in rows(quick=True) if row.name == FEW_ROW)
    settings = {**ours.settings, "WORKER_CONCURRENCY": str(IN_FLIGHT), "WORKER_HTTP_PORT": str(port)}
    return replace(ours, settings=settings, command=(sys.executable, "-c", _BLINKING))


def _cpu_s(pid: int) -> float:
    """Of all threads of a process, to the nanosecond (schedstat of proc(5))."""
    spent_ns = 0
    for schedstat in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with suppress(OSError):  # the thread is gone
            spent_ns += int(schedstat.read_text(encoding="ascii").split()[0])
    return spent_ns / 1e9


def _valkey_s(client: Any) -> float:
    spent = client.info("cpu")
    return spent["used_cpu_user_main_thread"] + spent["used_cpu_sys_main_thread"]


def _scrape(port: int) -> None:
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request("GET", "/metrics")
    connection.getresponse().read()
    connection.close()
