"""The admission controller before gateways it knows nothing about: minutes of traffic in seconds.

    python -m bench.simulate_admission            # every scenario, 5 seeds
    python -m bench.simulate_admission --sweep N  # N random gateways per family and kind, as percentiles
    python -m bench.simulate_admission --faults N # N random worlds per family of faulty tenants and gateways

Each seed draws a gateway: a continuous bucket holding 1 to 30 s of its rate, or fixed windows of 60 s or 10 s at any
phase; 20 to 800 ms to answer a 429; refused calls may count. Span is the upstream's first to last call over the
scenario's ideal; a gateway's own burst can push it below 1.
"""

import argparse
import random
import statistics
from collections.abc import Callable
from dataclasses import dataclass

from bench.sim_mixtures import print_families
from bench.sim_worlds import (
    FLEETS,
    KINDS,
    World,
    accounts,
    configured,
    flooded,
    large_unknown,
    moody,
    pausing,
    sporadic,
    steady,
    stepping,
    swept,
    tokens,
    unknown,
    with_headers,
)

SWEPT = (*KINDS, ("sliding", 60.0))


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run: requests lost, share of 429s, and the figure its bar is about."""

    lost: int
    refused_percent: float
    figure: float


@dataclass(frozen=True, slots=True)
class Scenario:
    """A question to the controller, and the answer that would do."""

    name: str
    world: Callable[[random.Random, int], World]
    refused_bar: float
    figure_bar: float
    figure: str = "span"

    def run(self, seed: int) -> Outcome:
        """One answer."""
        fleet, figure = self.world(random.Random(f"{self.name} {seed}"), seed)
        report = fleet.simulate()
        return Outcome(report.lost, report.refused_percent, figure(report))


SCENARIOS = [
    *(Scenario(f"configured 600, n = 400, {s} processes", configured(600, 400, s), 1, 1.10) for s in FLEETS),
    *(Scenario(f"configured 3,000, n = 2,000, {s}", configured(3_000, 2_000, s), 1, 1.10) for s in FLEETS),
    Scenario("unknown, true headers", with_headers(lambda _, rpm: (rpm,)), 3, 1.15),
    Scenario("unknown, no headers", unknown, 5, 1.25, "span after 30 s"),
    Scenario("accounts of 600, 300, 120, unknown", accounts(600, 300, 120), 5, 1.11, "span after 30 s"),
    Scenario("unknown, 60,000 a minute", large_unknown, 2, 1.10, "limit over rate after 8 s"),
    Scenario("TPM configured, n = 200", tokens(200, "reserved"), 1, 1.08),
    Scenario("TPM configured, n = 3,000", tokens(3_000, "reserved"), 1, 1.08),
    Scenario("600 -> 200 -> 600, 600 configured", stepping(600), 6, 1.35),
    Scenario("600 -> 200 -> 600, unknown", stepping(0), 6, 1.35),
    Scenario("Retry-After 10 s, configured", pausing(600), 100, 0, "grants while paused"),
    Scenario("Retry-After 10 s, unknown", pausing(0), 100, 0, "grants while paused"),
    Scenario("lane flooded by 5,000", flooded, 100, 1.5, "p95 wait over fair"),
    # Not asked for: must not lose or stall.
    Scenario("lying headers, 20 x the limit", with_headers(lambda _, rpm: (20 * rpm,)), 100, 3),
    Scenario("lying headers, a third of it", with_headers(lambda _, rpm: (rpm / 3,)), 100, 3),
    Scenario("headers of two accounts", with_headers(lambda r, _: (60.0, r.uniform(99, 9_999))), 100, 3),
    Scenario("TPM, charged by usage, n = 3,000", tokens(3_000, "used"), 100, 3),
    Scenario("bursts over the gateway's, configured", sporadic(600), 5, 6, "p95 wait, s"),
    Scenario("bursts over the gateway's, unknown", sporadic(0), 5, 6, "p95 wait, s"),
    Scenario("1 % refused at any rate, configured", moody(3_000), 2, 1.25),
    Scenario("1 % refused at any rate, unknown", moody(0), 5, 9),
    Scenario("30 min of 400, 600 configured", steady(600), 5, 1.25),
    Scenario("30 min of 400, unknown", steady(0), 5, 1.25),
]


def print_table(seeds: int) -> None:
    """One line per scenario: median and worst of the seeds against its bars."""
    print(f"{'scenario (median/worst)':40} lost {'% of 429s':>13} {'bar':>4} {'figure':>13} {'bar':>4}  holds for")
    for scenario in SCENARIOS:
        runs = [scenario.run(seed) for seed in range(seeds)]
        lost = max(r.lost for r in runs)
        refused, figures = [r.refused_percent for r in runs], [r.figure for r in runs]

        def holds(of: Callable[[list[float]], float]) -> bool:
            return not lost and of(refused) <= scenario.refused_bar and of(figures) <= scenario.figure_bar  # noqa: B023 - called in this turn only

        verdict = "all" if holds(max) else "median" if holds(statistics.median) else "NO"
        print(
            f"{scenario.name:40} {lost:4} {statistics.median(refused):6.2f}/{max(refused):6.2f}"
            f" {scenario.refused_bar if scenario.refused_bar < 100 else '-':>4}"
            f" {statistics.median(figures):6.3f}/{max(figures):6.3f} {scenario.figure_bar:4}"
            f"  {verdict:6} {scenario.figure}"
        )


def print_sweep(runs: int) -> None:
    """Percentiles of 429s and span over random gateways, by family and kind of gateway."""
    print(f"{'family, gateway':38} lost  % of 429s: p50 p90 p99 max     span: p50 p90 p99 max")
    cuts = [int(p * (runs - 1)) for p in (0.5, 0.9, 0.99, 1)]
    for family in ("configured", "true headers", "unknown", "configured too high"):
        for kind in SWEPT:
            name = f"{family}, {kind[0]} {f'{kind[1]:.0f} s' if kind[1] else ''}"
            outcomes = [Scenario(name, swept(family, kind), 100, 100).run(i) for i in range(runs)]
            refused = sorted(o.refused_percent for o in outcomes)
            spans = sorted(o.figure for o in outcomes)
            columns = [f"{refused[c]:7.2f}" for c in cuts] + ["  "] + [f"{spans[c]:6.3f}" for c in cuts]
            print(f"{name:38} {max(o.lost for o in outcomes):4} ", *columns, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweep", type=int, metavar="N", help="random gateways per family and kind")
    parser.add_argument("--faults", type=int, metavar="N", help="random worlds per family of troubles")
    parser.add_argument("--only", default="", metavar="FAMILY", help="families whose name contains this")
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    if args.faults:
        print_families(args.faults, args.only)
    elif args.sweep:
        print_sweep(args.sweep)
    else:
        print_table(args.seeds)


if __name__ == "__main__":
    main()
