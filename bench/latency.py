"""The time that a worker adds to a request, beside the recipe that people write: Celery threads and `httpx.Client`.

`python -m bench.latency [--runs 5] [--quick] [--json] [--plot OUT.svg]`. Everything is real: an embedded Valkey, the
simulated gateway in a process of its own, one worker process at a time. A run measures each worker in turn. The figures
are medians over the runs, and the percentiles of the first rows are those of all requests of all runs. Messages are
pushed to the list as Celery writes them, and a result is there when a blocking read of its stream returns.
"""

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import redis

from api_contracts.client import ResponsesClient
from bench import ROOT
from bench.latency_plot import plot
from bench.throughput_load import Load, Template
from bench.throughput_probe import CommandCounter
from bench.throughput_rows import OURS, RECIPE, Row, running
from worker.devtools.devstack import Simulator, embedded_valkey, simulator_process

PLOT: Final = ROOT / "docs" / "explanation" / "latency.svg"
LATENCY_S: Final = 0.2
IN_FLIGHT: Final = 100
FEW: Final = 50
PROMPT: Final = "Say it in one sentence. " * 10
BODY: Final[Mapping[str, Any]] = {"model": "gpt-5.4-mini", "input": [{"role": "user", "content": PROMPT}]}
_SETTLE_S: Final = 6.0
_LOST_S: Final = 20.0
"""After so long without a result, what is left counts as lost: Celery's thread pool sometimes stops taking messages."""

_RECIPE = replace(RECIPE, name="recipe", latency_s=LATENCY_S)
_OURS = replace(OURS, latency_s=LATENCY_S)
_DEFAULTS: Final = {"WORKER_CONCURRENCY": str(IN_FLIGHT)}
_KNOWN: Final = {"WORKER_CONCURRENCY": str(FEW), "WORKER_REQUESTS_PER_MINUTE": "1000000"}


@dataclass(slots=True)
class Figures:
    """Of one worker; times in ms, one for each request or run."""

    added: list[float] = field(default_factory=list[float])
    waited: list[float] = field(default_factory=list[float])
    idle: list[float] = field(default_factory=list[float])
    burst: list[float] = field(default_factory=list[float])
    steady: list[float] = field(default_factory=list[float])
    lost: int = 0


@dataclass(frozen=True, slots=True)
class Sizes:
    singles: int
    burst: int
    steady: int
    idle_s: float


FULL: Final = Sizes(singles=100, burst=2000, steady=1000, idle_s=20)
QUICK: Final = Sizes(singles=20, burst=500, steady=300, idle_s=5)


@dataclass(slots=True)
class Bench:
    redis_url: str
    gateway: Simulator
    sizes: Sizes

    def run(self, row: Row, figures: Figures) -> None:
        """All that is measured of one worker, each on a worker of its own and an empty server."""
        defaults = row if row is _RECIPE else replace(row, settings=_DEFAULTS)
        self._on(defaults, lambda load, client: self._one_at_a_time(load, client, figures))
        if row is not _RECIPE:
            self._on(defaults, lambda _, __: self._awaited(figures))
        self._on(defaults, lambda load, _: figures.burst.append(self._rate(load, self.sizes.burst, figures)))
        known = replace(row, command=_few(row.command)) if row is _RECIPE else replace(row, settings=_KNOWN)
        self._on(known, lambda load, _: figures.steady.append(self._rate(load, self.sizes.steady, figures)))

    def _on(self, row: Row, measure: Callable[[Load, Any], None]) -> None:
        # Protocol 2, because replies of XREAD differ in shape; one connection, because its commands are not counted.
        client: Any = redis.Redis.from_url(self.redis_url, protocol=2, single_connection_client=True)  # pyright: ignore[reportUnknownMemberType]  # untyped kwargs
        client.flushall()
        self.gateway.configure(latency_median_s=LATENCY_S, latency_sigma=0.0)
        load = Load(
            client, Template.captured(self.redis_url, task=row.task, queue=row.queue, prompt=PROMPT), row.stream
        )
        with running(row, self.redis_url, self.gateway.url):
            self.gateway.reset()
            measure(load, client)
        client.close()

    def _one_at_a_time(self, load: Load, client: Any, figures: Figures) -> None:
        """The next request once the last one is answered, and then none at all."""
        for number in range(self.sizes.singles + 3):
            began = time.perf_counter()
            load.enqueue(1)
            while not (answered := load.collect(1000)) and time.perf_counter() - began < _LOST_S:
                pass
            total_ms = (time.perf_counter() - began) * 1000
            figures.lost += not answered
            if answered and number >= 3:  # the first ones open connections and load scripts
                figures.added.append(total_ms - self._taken_ms(next(iter(answered))))
        time.sleep(_SETTLE_S)
        counter = CommandCounter(client)
        time.sleep(self.sizes.idle_s)
        used = counter.since_start().per(self.sizes.idle_s)
        figures.idle.append(used.sent + used.inside)

    def _taken_ms(self, tag: str) -> float:
        (call,) = [call for call in self.gateway.calls() if call.tag == tag]
        return (call.duration_s or 0) * 1000

    def _awaited(self, figures: Figures) -> None:
        """From the result's entry, whose id is a time in whole ms, to the caller: up to one ms is rounding."""
        with ResponsesClient(self.redis_url) as client:
            reader: Any = redis.Redis.from_url(self.redis_url, protocol=2)  # pyright: ignore[reportUnknownMemberType]  # untyped kwargs
            for _ in range(self.sizes.singles):
                client.wait(client.enqueue(BODY), timeout_s=30)
                now_ms = time.time() * 1000
                ((entry, _),) = reader.xrevrange("responses:results", count=1)
                figures.waited.append(now_ms - int(entry.partition(b"-")[0]))
            reader.close()

    def _rate(self, load: Load, count: int, figures: Figures) -> float:
        """Requests a second from the push of all at once to the last result; those without one are lost."""
        began = last = time.perf_counter()
        left = count
        load.enqueue(count)
        while left and time.perf_counter() - last < _LOST_S:
            if came := len(load.collect(1000)):
                left, last = left - came, time.perf_counter()
        figures.lost += left
        return (count - left) / (last - began)


def _few(command: Sequence[str]) -> Sequence[str]:
    return [*command[:-1], str(FEW)]


def percentile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] if values else float("nan")


def table(found: Mapping[str, Figures]) -> str:
    recipe, ours = found[_RECIPE.name], found[_OURS.name]

    def times(values: Sequence[float]) -> str:
        return f"{percentile(values, 0.5):.1f} / {percentile(values, 0.99):.1f} ms" if values else "-"

    lines = [
        ("", "recipe", "responses-worker"),
        ("requests that got no result", str(recipe.lost), str(ours.lost)),
        ("one request on an idle worker: added, p50 / p99", times(recipe.added), times(ours.added)),
        ("from the result to a caller of client.wait, p50 / p99", "-", times(ours.waited)),
        *(
            (name, f"{statistics.median(theirs):.1f}{unit}", f"{statistics.median(own):.1f}{unit}")
            for name, theirs, own, unit in (
                ("idle worker: Redis commands a second, inner ones too", recipe.idle, ours.idle, ""),
                (f"many at once, limit unknown, {IN_FLIGHT} in flight", recipe.burst, ours.burst, "/s"),
                (f"many at once, limit known, {FEW} in flight", recipe.steady, ours.steady, "/s"),
            )
        ),
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(f"{a:<{widths[0]}}  {b:>{widths[1]}}  {c:>{widths[2]}}" for a, b, c in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="The time that a worker adds to a request, beside the usual recipe.")
    parser.add_argument("--runs", type=int, help="5, or 1 with --quick")
    parser.add_argument("--quick", action="store_true", help="fewer requests")
    parser.add_argument("--json", action="store_true", help="all times, as JSON")
    parser.add_argument("--plot", type=Path, default=PLOT, help="where the distribution is drawn")
    options = parser.parse_args()
    runs: int = options.runs or (1 if options.quick else 5)
    found = {_RECIPE.name: Figures(), _OURS.name: Figures()}
    with embedded_valkey() as valkey, simulator_process() as gateway:
        bench = Bench(valkey.url, gateway, QUICK if options.quick else FULL)
        for number in range(1, runs + 1):
            for row in (_RECIPE, _OURS):
                sys.stderr.write(f"run {number} of {runs}: {row.name}\n")
                bench.run(row, found[row.name])
    if not options.quick:
        plot({name: figures.added for name, figures in found.items()}, options.plot)
    if options.json:
        print(json.dumps({name: asdict(figures) for name, figures in found.items()}))
    else:
        print(f"Python {platform.python_version()}, {platform.machine()}, {runs} runs\n\n{table(found)}")


if __name__ == "__main__":
    main()
