"""What the admission controller does to gateways it knows nothing about: minutes of traffic in seconds.

    python bench/simulate_admission.py            # every scenario, 5 seeds
    python bench/simulate_admission.py --sweep N  # N random gateways per family, as percentiles

Each seed draws a gateway: a continuous bucket holding 1 to 30 s of its rate, or fixed windows of 60 s or 10 s at any
phase; 20 to 800 ms to answer a 429; refused calls may count. Span is the upstream's first to last call over the
scenario's ideal; a gateway's own burst can push it below 1.
"""

import argparse
import random
import statistics
from collections.abc import Callable
from dataclasses import dataclass

from sim_controller import Controller
from sim_gateway import Fleet, Gateway, Report, Work

BURST_S = 2.0
KINDS = (("bucket", 0.0), ("window", 60.0), ("window", 10.0))
SWEPT = (*KINDS, ("sliding", 60.0))
FLEETS: dict[str, list[tuple[float, int]]] = {
    "4": [(0, 4)],
    "8": [(0, 8)],
    "4-8-2": [(0, 4), (8_000, 8), (20_000, 2)],
}
LANES = (("interactive", 4.0), ("batch", 1.0))


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
    run: Callable[[int], Outcome]
    refused_bar: float
    figure_bar: float
    figure: str = "span"


def gateway(rng: random.Random, seed: int, per_minute: float, **known: object) -> Gateway:
    """A gateway of the seed's kind, else at random."""
    return draw(rng, *KINDS[seed % len(KINDS)], per_minute, **known)


def draw(rng: random.Random, drawn_kind: str, width_s: float, per_minute: float, **known: object) -> Gateway:
    """A gateway of that kind, random in the rest; a width of 0 draws a burst."""
    seconds = width_s or rng.uniform(1, 30)
    drawn = {
        "kind": drawn_kind,
        "seconds": seconds,
        "phase_ms": rng.uniform(0, seconds * 1_000),
        "refusal_ms": rng.uniform(20, 800),
        "failures_count": rng.random() < 0.3,
    }
    return Gateway(per_minute, **(drawn | known))  # type: ignore[arg-type]  # the draw mixes types by field


def backlog(tokens: list[int]) -> dict[str, Work]:
    """The requests, all waiting at the start, dealt to the lanes in turn."""
    dealt = [tokens[i :: len(LANES)] for i in range(len(LANES))]
    return {name: Work(weight, t, [0.0] * len(t)) for (name, weight), t in zip(LANES, dealt, strict=True)}


def fleet(size: str) -> list[tuple[float, list[tuple[str, ...]]]]:
    """Processes over time; each serves one lane only."""
    return [(at_ms, [(LANES[i % len(LANES)][0],) for i in range(n)]) for at_ms, n in FLEETS[size]]


def ideal_s(upstream: Gateway, calls: int, per_minute: float) -> float:
    """What a client that knows the limit needs, using no more burst than its own."""
    return calls / (per_minute / 60) - min(BURST_S, upstream.seconds)


def outcome(report: Report, figure: float) -> Outcome:
    return Outcome(report.lost, report.refused_percent, figure)


def configured(rpm: float, calls: int, size: str) -> Callable[[int], Outcome]:
    """The limit is configured and true; no headers."""

    def run(seed: int) -> Outcome:
        rng = random.Random(f"configured {rpm} {size} {seed}")
        upstream = gateway(rng, seed, rpm)
        controller = Controller(now_ms=0, rpm=rpm, burst_s=BURST_S)
        report = Fleet(rng, controller, upstream, backlog([0] * calls), fleet(size)).simulate()
        return outcome(report, report.span_s / ideal_s(upstream, calls, rpm))

    return run


def with_headers(advertised: Callable[[random.Random, float], tuple[float, ...]]) -> Callable[[int], Outcome]:
    """Nothing configured; responses name a limit."""

    def run(seed: int) -> Outcome:
        rng = random.Random(f"headers {seed}")
        rpm = rng.uniform(300, 3_000)
        upstream = gateway(rng, seed, rpm, advertised_rpm=advertised(rng, rpm))
        report = Fleet(rng, Controller(now_ms=0), upstream, backlog([0] * 2_000), fleet("4")).simulate()
        return outcome(report, report.span_s / ideal_s(upstream, 2_000, rpm))

    return run


def unknown(seed: int) -> Outcome:
    """Nothing configured, nothing said; the figure is the span after the first 30 s over the least possible."""
    rng = random.Random(f"unknown {seed}")
    rpm = rng.uniform(300, 3_000)
    upstream = gateway(rng, seed, rpm)
    report = Fleet(rng, Controller(now_ms=0), upstream, backlog([0] * 2_000), fleet("4")).simulate()
    rest = report.total - report.served_in_30s
    ideal = max(rest / (rpm / 60), report.fastest_rest_s, 5.0)  # a handful left over says nothing
    return outcome(report, max(0.0, report.span_s - 30) / ideal)


def tokens(calls: int, charges: str) -> Callable[[int], Outcome]:
    """300,000 TPM per 10 s; callers reserve 1,000 output tokens and use 20 to 60 % of what they reserve."""

    def run(seed: int) -> Outcome:
        rng = random.Random(f"tokens {seed}")
        window = {"kind": "window", "seconds": 10.0, "phase_ms": rng.uniform(0, 10_000)}
        upstream = gateway(rng, seed, 300_000, charges=charges, **window)
        costs = [1_000 + rng.randint(10, 60) for _ in range(calls)]
        used: list[int] = []

        def use(rng: random.Random, reserved: int) -> int:
            used.append(int(reserved * rng.uniform(0.2, 0.6)))
            return used[-1]

        controller = Controller(now_ms=0, tpm=300_000)
        report = Fleet(rng, controller, upstream, backlog(costs), fleet("4"), use=use).simulate()
        charged = sum(used) if charges == "used" else sum(costs)
        return outcome(report, report.span_s / (charged / 5_000))

    return run


def stepping(told_rpm: float) -> Callable[[int], Outcome]:
    """The limit goes 600, 200 after 1 min, 600 again after 3 min, unannounced."""

    def run(seed: int) -> Outcome:
        rng = random.Random(f"stepping {seed}")
        upstream = gateway(rng, seed, 600, steps=[(60_000, 200), (180_000, 600)])
        controller = Controller(now_ms=0, rpm=told_rpm)
        report = Fleet(rng, controller, upstream, backlog([0] * 2_000), fleet("4")).simulate()
        return outcome(report, report.span_s / (180 + (2_000 - 600 - 400) / 10))

    return run


def pausing(told_rpm: float) -> Callable[[int], Outcome]:
    """The credential is told to wait 10 s; the figure counts grants after the first pause was written."""

    def run(seed: int) -> Outcome:
        rng = random.Random(f"pausing {seed}")
        upstream = gateway(rng, seed, 600, frozen_ms=(15_000, 25_000))
        controller = Controller(now_ms=0, rpm=told_rpm)
        report = Fleet(rng, controller, upstream, backlog([0] * 1_000), fleet("4")).simulate()
        paused = report.told_to_pause_ms
        return outcome(report, sum(0 <= paused < at_ms < 25_000 for at_ms in report.grants_ms))

    return run


def p95(values: list[float]) -> float:
    return sorted(values)[int(0.95 * (len(values) - 1))]


def flooded(seed: int) -> Outcome:
    """Lane A holds 5,000, lane B of equal weight gets 20; the figure is B's p95 wait over 20 / (its share)."""
    rng = random.Random(f"flooded {seed}")
    work = {"a": Work(1, [0] * 5_000, [0.0] * 5_000), "b": Work(1, [0] * 20, [30_000.0] * 20)}
    processes: list[tuple[float, list[tuple[str, ...]]]] = [(0, [("a",), ("b",)])]
    controller, upstream = Controller(now_ms=0, rpm=600), gateway(rng, seed, 600)
    report = Fleet(rng, controller, upstream, work, processes, limit_s=120).simulate()
    waits_ms = report.waits_ms["b"]
    return Outcome(20 - len(waits_ms), report.refused_percent, p95(waits_ms) / 1_000 / (20 / 5))


def weighted(seed: int) -> Outcome:
    """Both lanes hold more than a minute serves; the figure is the worse error of the 4:1 share."""
    rng = random.Random(f"weighted {seed}")
    rpm = rng.choice((60, 600, 3_000))
    controller, upstream = Controller(now_ms=0, rpm=rpm), gateway(rng, seed, rpm)
    report = Fleet(rng, controller, upstream, backlog([0] * 9_000), fleet("8"), limit_s=60).simulate()
    share = len(report.waits_ms["interactive"]) / len(report.waits_ms["batch"]) / 4
    return Outcome(0, report.refused_percent, max(share, 1 / share))


def sporadic(told_rpm: float) -> Callable[[int], Outcome]:
    """30 requests every 6 s for 5 min, half of what a bucket of one second's burst grants; p95 wait in s."""

    def run(seed: int) -> Outcome:
        rng = random.Random(f"sporadic {seed}")
        at_ms = [6_000.0 * i for i in range(50) for _ in range(30)]
        upstream = gateway(rng, seed, 600, kind="bucket", seconds=1.0)
        work = {"interactive": Work(1, [0] * len(at_ms), at_ms)}
        controller = Controller(now_ms=0, rpm=told_rpm)
        report = Fleet(rng, controller, upstream, work, [(0, [("interactive",)] * 4)]).simulate()
        return outcome(report, p95(report.waits_ms["interactive"]) / 1_000)

    return run


def steady(told_rpm: float) -> Callable[[int], Outcome]:
    """30 min of a limit of 400 RPM that nobody told, or told wrong."""

    def run(seed: int) -> Outcome:
        rng = random.Random(f"steady {seed}")
        controller, upstream = Controller(now_ms=0, rpm=told_rpm), gateway(rng, seed, 400)
        report = Fleet(rng, controller, upstream, backlog([0] * 12_000), fleet("4")).simulate()
        return outcome(report, report.span_s / 1_800)

    return run


SCENARIOS = [
    *(Scenario(f"configured 600, n = 400, {s} processes", configured(600, 400, s), 1, 1.10) for s in FLEETS),
    *(Scenario(f"configured 3,000, n = 2,000, {s}", configured(3_000, 2_000, s), 1, 1.10) for s in FLEETS),
    Scenario("unknown, true headers", with_headers(lambda _, rpm: (rpm,)), 3, 1.15),
    Scenario("unknown, no headers", unknown, 5, 1.25, "after 30 s"),
    Scenario("TPM configured, n = 200", tokens(200, "reserved"), 1, 1.08),
    Scenario("TPM configured, n = 3,000", tokens(3_000, "reserved"), 1, 1.08),
    Scenario("600 -> 200 -> 600, 600 configured", stepping(600), 6, 1.35),
    Scenario("600 -> 200 -> 600, unknown", stepping(0), 6, 1.35),
    Scenario("Retry-After 10 s, configured", pausing(600), 100, 0, "grants"),
    Scenario("Retry-After 10 s, unknown", pausing(0), 100, 0, "grants"),
    Scenario("lane flooded by 5,000", flooded, 100, 1.5, "p95 wait"),
    # Beyond the bars: must not lose or stall.
    Scenario("lanes 4:1, both flooded", weighted, 1, 1.10, "share"),
    Scenario("lying headers, 20 x the limit", with_headers(lambda _, rpm: (20 * rpm,)), 100, 3),
    Scenario("lying headers, 60", with_headers(lambda *_: (60.0,)), 100, 3),
    Scenario("lying headers, a third", with_headers(lambda _, rpm: (rpm / 3,)), 100, 3),
    Scenario("headers of many accounts", with_headers(lambda r, _: (60.0, r.uniform(99, 9_999))), 100, 3),
    Scenario("TPM, charged by usage, n = 3,000", tokens(3_000, "used"), 100, 3),
    Scenario("bursts over the gateway's, configured", sporadic(600), 5, 6, "p95 wait s"),
    Scenario("bursts over the gateway's, unknown", sporadic(0), 5, 6, "p95 wait s"),
    Scenario("30 min of 400, 600 configured", steady(600), 5, 1.25),
    Scenario("30 min of 400, unknown", steady(0), 5, 1.25),
]


def print_table(seeds: int) -> None:
    """One line per scenario: median / worst of the seeds against its bar."""
    print(f"{'scenario':40} {'lost':>4} {'% of 429s':>13} {'bar':>4} {'figure':>13} {'bar':>5}  ok")
    for scenario in SCENARIOS:
        runs = [scenario.run(seed) for seed in range(seeds)]
        lost = max(r.lost for r in runs)
        refused = [r.refused_percent for r in runs]
        figures = [r.figure for r in runs]
        median_ok = statistics.median(refused) <= scenario.refused_bar
        median_ok = median_ok and statistics.median(figures) <= scenario.figure_bar and not lost
        worst_ok = max(refused) <= scenario.refused_bar and max(figures) <= scenario.figure_bar
        print(
            f"{scenario.name:40} {lost:4} {statistics.median(refused):6.2f}/{max(refused):6.2f}"
            f" {scenario.refused_bar if scenario.refused_bar < 100 else '-':>4}"
            f" {statistics.median(figures):6.3f}/{max(figures):6.3f} {scenario.figure_bar:5}"
            f"  {'all' if median_ok and worst_ok else 'median' if median_ok else 'NO':6} {scenario.figure}"
        )


def sweep_one(rng: random.Random, kind: str, width_s: float, family: str) -> Outcome:
    """One random world of a family: also latency, network skew and number of processes are drawn."""
    rpm, calls = rng.uniform(300, 3_000), 2_000
    told = {"configured": rpm, "configured too high": rpm / rng.uniform(0.3, 1)}.get(family, 0)
    upstream = draw(rng, kind, width_s, rpm, advertised_rpm=(rpm,) if family == "true headers" else ())
    processes: list[tuple[float, list[tuple[str, ...]]]] = [
        (0, [("interactive", "batch")] * rng.randint(1, 12)),
    ]
    report = Fleet(
        rng,
        Controller(now_ms=0, rpm=told),
        upstream,
        backlog([0] * calls),
        processes,
        latency_s=rng.choice((0.3, 0.8, 3, 20)),
        skew_ms=rng.uniform(5, 250),
        capacity=2_000,
    ).simulate()
    return outcome(report, report.span_s / ideal_s(upstream, calls, rpm))


def print_sweep(runs: int) -> None:
    """Percentiles of 429s and span over random gateways, by family and kind of gateway."""
    print(f"{'family, gateway':38} {'lost':>4}  % of 429s: p50 p90 p99 max      span: p50 p90 p99 max")
    for family in ("configured", "true headers", "unknown", "configured too high"):
        for kind, width_s in SWEPT:
            rngs = [random.Random(f"sweep {family} {kind} {width_s} {i}") for i in range(runs)]
            outcomes = [sweep_one(rng, kind, width_s, family) for rng in rngs]
            refused = sorted(o.refused_percent for o in outcomes)
            spans = sorted(o.figure for o in outcomes)
            cuts = [int(p * (runs - 1)) for p in (0.5, 0.9, 0.99, 1)]
            label = f"{family}, {kind} {f'{width_s:.0f} s' if width_s else ''}"
            print(
                f"{label:38} {max(o.lost for o in outcomes):4}  "
                + " ".join(f"{refused[c]:7.2f}" for c in cuts)
                + "   "
                + " ".join(f"{spans[c]:6.3f}" for c in cuts),
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweep", type=int, metavar="N", help="random gateways per family and kind")
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    if args.sweep:
        print_sweep(args.sweep)
    else:
        print_table(args.seeds)


if __name__ == "__main__":
    main()
