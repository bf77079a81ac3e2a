"""The ceiling of a fleet: what one request costs the main thread of Valkey, and how many requests fill one core of it.

`python -m bench.ceiling [--quick]`. Real workers call the simulated gateway through one embedded Valkey, with as many
requests under way as they hold. CPU time is measured and not throughput, so that a small machine measures a large
fleet. A request costs less as more calls share a round trip, so few calls under way show the worst.
"""

import argparse
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import redis

from bench.throughput_load import Load, Template
from bench.throughput_probe import Processes, main_thread_s
from bench.throughput_rows import Row, rows, running
from worker.devtools.devstack import Simulator, embedded_valkey, simulator_process

LATENCY_S: Final = 1.0
PROCESSES: Final = (1, 2, 4)
IN_FLIGHT: Final = (50, 100, 400)
ROUTES: Final = 3
MANY: Final = 2400
LONG_S: Final = 8.0
"""A process of the fleet for 100,000 requests a minute, as the page on capacity plans it."""
BODIES: Final = (1_000, 100_000, 1_000_000)
_LEGEND: Final = """\
Valkey: CPU of its main thread for one request. commands: all that it ran for one request, those inside scripts
included. worker: CPU of the workers for one request. ceiling: requests a second at which that thread is full."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    processes: int = 1
    in_flight: int = 100
    body: int = 1_000
    requests: int = 2_000
    routes: int = 1
    """Each with an account of its own."""
    latency_s: float = LATENCY_S
    """Of the gateway's calls."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Per request."""

    valkey_ms: float
    commands: float
    worker_ms: float


def cases(*, quick: bool) -> list[Case]:
    every = [Case(in_flight=calls) for calls in IN_FLIGHT]
    every += [Case(in_flight=IN_FLIGHT[0], routes=ROUTES)]
    every += [Case(processes=count) for count in PROCESSES[1:]]
    every += [Case(body=size, in_flight=20, requests=200) for size in BODIES[1:]]
    every += [] if quick else [Case(in_flight=MANY, latency_s=LONG_S, requests=MANY)]
    return [replace(case, requests=case.requests // 4) for case in every] if quick else every


def measure(case: Case, redis_url: str, gateway: Simulator) -> Cost:
    """Starts the workers of one case, and measures once all their places are taken."""
    client: Any = redis.Redis.from_url(redis_url, protocol=2, single_connection_client=True)  # pyright: ignore[reportUnknownMemberType]  # untyped kwargs
    client.flushall()
    gateway.configure(latency_median_s=case.latency_s, latency_sigma=0.1)
    with ExitStack() as stack:
        row = _row(case, gateway.url, Path(stack.enter_context(tempfile.TemporaryDirectory())))
        template = Template.captured(redis_url, task=row.task, queue=row.queue, prompt="x" * case.body)
        load, outstanding = Load(client, template, row.stream), case.processes * case.in_flight
        pids = [stack.enter_context(running(row, redis_url, gateway.url)) for _ in range(case.processes)]
        workers = [stack.enter_context(Processes(pid)) for pid in pids]
        load.ramp(outstanding, over_s=case.latency_s)
        load.keep(outstanding)
        began = _spent(client, workers)
        load.keep(case.requests)
        ended = _spent(client, workers)
        load.finish(within_s=10 * case.latency_s)
    client.close()
    return Cost(*((after - before) / case.requests for before, after in zip(began, ended, strict=True)))


def table(costs: Sequence[tuple[Case, Cost]]) -> str:
    """One line a case."""
    names = (
        f"{'processes':>9} {'in flight':>9} {'body':>9} {'routes':>6} {'call s':>6} {'Valkey ms':>9} {'commands':>8}"
    )
    lines = [f"{names} {'worker ms':>9} {'ceiling /s':>10}"]
    for case, cost in costs:
        ceiling = 1000 / cost.valkey_ms
        lines.append(
            f"{case.processes:>9} {case.in_flight:>9} {case.body:>9,} {case.routes:>6} {case.latency_s:>6g} "
            f"{cost.valkey_ms:>9.3f} "
            f"{cost.commands:>8.1f} {cost.worker_ms:>9.3f} {ceiling:>10,.0f}"
        )
    return "\n".join([*lines, "", _LEGEND])


def _row(case: Case, url: str, folder: Path) -> Row:
    ours = next(row for row in rows(quick=True) if row.ready == "worker.started")
    settings = {**ours.settings, "WORKER_CONCURRENCY": str(case.in_flight)}
    if case.routes > 1:
        rpm = int(settings.pop("WORKER_REQUESTS_PER_MINUTE")) // case.routes
        settings["WORKER_CONFIG_FILE"] = str(_file(case.routes, rpm, url, folder))
    return replace(ours, settings=settings)


def _file(routes: int, rpm: int, url: str, folder: Path) -> Path:
    key, file = folder / "key", folder / "routes.toml"
    key.write_text("sk-bench")
    file.write_text(
        "\n".join(
            f"[accounts.a{number}]\nrequests_per_minute = {rpm}\n"
            f'[routes.r{number}]\nurl = "{url}"\nkey_file = "{key}"\naccount = "a{number}"'
            for number in range(routes)
        )
    )
    return file


def _spent(client: Any, workers: Sequence[Processes]) -> tuple[float, float, float]:
    """Until now: Valkey's milliseconds, commands, the workers' milliseconds."""
    return main_thread_s(client) * 1000, float(_commands(client)), sum(worker.cpu_s for worker in workers) * 1000


def _commands(client: Any) -> int:
    """All that ran, but for what this bench asks itself: it reads results and enqueues in a few large pieces."""
    return sum(stats["calls"] for stats in client.info("commandstats").values())


def main() -> None:
    parser = argparse.ArgumentParser(description="What a request costs Valkey, and how many requests fill it.")
    parser.add_argument("--quick", action="store_true", help="a quarter of the requests")
    options = parser.parse_args()
    with embedded_valkey() as valkey, simulator_process() as gateway:
        print(table([(case, measure(case, valkey.url, gateway)) for case in cases(quick=options.quick)]))


if __name__ == "__main__":
    main()
