"""The ceiling of a fleet: what one request costs the main thread of Valkey, and how many requests fill one core of it.

`python -m bench.ceiling [--quick]`. Real workers call the simulated gateway through one embedded Valkey, with as many
requests under way as they hold. CPU time is measured and not throughput, so that a small machine measures a large
fleet. A request costs less as more calls share a round trip, so few calls under way show the worst.
"""

import argparse
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, Final

import redis

from bench.throughput_load import Load, Template
from bench.throughput_rows import Row, rows, running
from worker.devtools.devstack import Simulator, embedded_valkey, simulator_process

LATENCY_S: Final = 1.0
PROCESSES: Final = (1, 2, 4)
IN_FLIGHT: Final = (50, 100, 400)
BODIES: Final = (1_000, 100_000, 1_000_000)
_LEGEND: Final = """\
Valkey: CPU of its main thread for one request. commands: all that it ran for one request, those inside scripts
included. ceiling: requests a second at which that thread is full."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    processes: int = 1
    in_flight: int = 100
    body: int = 1_000
    requests: int = 2_000


@dataclass(frozen=True, slots=True)
class Cost:
    """Per request."""

    valkey_ms: float
    commands: float


def cases(*, quick: bool) -> list[Case]:
    every = [Case(in_flight=calls) for calls in IN_FLIGHT]
    every += [Case(processes=count) for count in PROCESSES[1:]]
    every += [Case(body=size, in_flight=20, requests=200) for size in BODIES[1:]]
    return [replace(case, requests=case.requests // 4) for case in every] if quick else every


def measure(case: Case, redis_url: str, gateway: Simulator) -> Cost:
    """Starts the workers of one case, and measures once all their places are taken."""
    client: Any = redis.Redis.from_url(redis_url, protocol=2, single_connection_client=True)  # pyright: ignore[reportUnknownMemberType]  # untyped kwargs
    client.flushall()
    gateway.configure(latency_median_s=LATENCY_S, latency_sigma=0.1)
    row = _row(case)
    template = Template.captured(redis_url, task=row.task, queue=row.queue, prompt="x" * case.body)
    load, outstanding = Load(client, template, row.stream), case.processes * case.in_flight
    with ExitStack() as stack:
        for _ in range(case.processes):
            stack.enter_context(running(row, redis_url, gateway.url))
        load.ramp(outstanding, over_s=LATENCY_S)
        load.keep(outstanding)
        cpu_s, commands = _cpu_s(client), _commands(client)
        load.keep(case.requests)
        cost = Cost((_cpu_s(client) - cpu_s) * 1000 / case.requests, (_commands(client) - commands) / case.requests)
        load.finish(within_s=10 * LATENCY_S)
    client.close()
    return cost


def table(costs: Sequence[tuple[Case, Cost]]) -> str:
    """One line a case."""
    lines = [f"{'processes':>9} {'in flight':>9} {'body':>9} {'Valkey ms':>9} {'commands':>8} {'ceiling /s':>10}"]
    for case, cost in costs:
        ceiling = 1000 / cost.valkey_ms
        lines.append(
            f"{case.processes:>9} {case.in_flight:>9} {case.body:>9,} {cost.valkey_ms:>9.3f} {cost.commands:>8.1f} "
            f"{ceiling:>10,.0f}"
        )
    return "\n".join([*lines, "", _LEGEND])


def _row(case: Case) -> Row:
    ours = next(row for row in rows(quick=True) if row.ready == "worker.started")
    return replace(ours, settings={**ours.settings, "WORKER_CONCURRENCY": str(case.in_flight)})


def _cpu_s(client: Any) -> float:
    spent = client.info("cpu")
    return spent["used_cpu_user_main_thread"] + spent["used_cpu_sys_main_thread"]


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
