"""Worlds for the admission controller, each with the figure that its outcome is judged by."""

import random
from collections.abc import Callable

from oracles.sim_controller import Controller

from bench.sim_accounts import Account, AccountsFleet
from bench.sim_gateway import Fleet, Gateway, Processes
from bench.sim_report import Report, Work

BURST_S = 2.0
KINDS = (("bucket", 0.0), ("window", 60.0), ("window", 10.0))
FLEETS = {"4": [(0, 4)], "8": [(0, 8)], "4-8-2": [(0, 4), (8_000, 8), (20_000, 2)]}
LANES = (("interactive", 4.0), ("batch", 1.0))
World = tuple[Fleet, Callable[[Report], float]]  # a fleet to run, and the figure to read off its report


def gateway(rng: random.Random, seed: int, per_minute: float, **known: object) -> Gateway:
    """One of the seed's kind."""
    return Gateway.drawn(rng, KINDS[seed % len(KINDS)], per_minute, **known)


def backlog(tokens: list[int]) -> dict[str, Work]:
    """The requests, all waiting at the start, dealt to the lanes in turn."""
    dealt = [tokens[i :: len(LANES)] for i in range(len(LANES))]
    return {name: Work(weight, t, [0.0] * len(t)) for (name, weight), t in zip(LANES, dealt, strict=True)}


def processes(size: str) -> Processes:
    """Processes over time; each serves one lane only."""
    return [(at_ms, [(LANES[i % len(LANES)][0],) for i in range(n)]) for at_ms, n in FLEETS[size]]


def controller(rpm: float = 0, tpm: float = 0) -> Controller:
    return Controller(now_ms=0, rpm=rpm, tpm=tpm, burst_s=BURST_S)


def span_over_ideal(upstream: Gateway, calls: int) -> Callable[[Report], float]:
    """Against a client that knows the limit, and uses no more burst than its own."""
    ideal_s = calls / (upstream.per_minute / 60) - min(BURST_S, upstream.seconds)
    return lambda report: report.span_s / ideal_s


def configured(rpm: float, calls: int, size: str) -> Callable[[random.Random, int], World]:
    """The limit is configured and true; no headers."""

    def world(rng: random.Random, seed: int) -> World:
        upstream = gateway(rng, seed, rpm)
        fleet = Fleet(rng, controller(rpm), upstream, backlog([0] * calls), processes(size))
        return fleet, span_over_ideal(upstream, calls)

    return world


def with_headers(
    advertised: Callable[[random.Random, float], tuple[float, ...]],
) -> Callable[[random.Random, int], World]:
    """Nothing configured; responses name a limit."""

    def world(rng: random.Random, seed: int) -> World:
        rpm = rng.uniform(300, 3_000)
        upstream = gateway(rng, seed, rpm, advertised_rpm=advertised(rng, rpm))
        fleet = Fleet(rng, controller(), upstream, backlog([0] * 2_000), processes("4"))
        return fleet, span_over_ideal(upstream, 2_000)

    return world


def unknown(rng: random.Random, seed: int) -> World:
    """Nothing configured, nothing said; the figure is the span after the first 30 s over the least possible."""
    rpm = rng.uniform(300, 3_000)

    def figure(report: Report) -> float:
        rest_s = (report.total - report.served_in_30s) / (rpm / 60)
        ideal_s = max(rest_s, report.fastest_rest_s, 5.0)  # a handful of calls left says nothing
        return max(0.0, report.span_s - 30) / ideal_s

    upstream = gateway(rng, seed, rpm)
    return Fleet(rng, controller(), upstream, backlog([0] * 2_000), processes("4")), figure


def accounts(*rates: float) -> Callable[[random.Random, int], World]:
    """As many accounts side by side, nothing known of any."""

    def world(rng: random.Random, _: int) -> World:
        one = Gateway.drawn(rng, ("bucket", 0.0), rates[0])
        own = [
            Account.learning(Gateway(rate, seconds=one.seconds, refusal_ms=one.refusal_ms), len(rates))
            for rate in rates
        ]

        def figure(report: Report) -> float:
            rest_s = (report.total - report.served_in_30s) / (sum(rates) / 60)
            return max(0.0, report.span_s - 30) / max(rest_s, 5.0)

        return AccountsFleet(rng, own, backlog([0] * 2_000), processes("4")), figure

    return world


def large_unknown(rng: random.Random, seed: int) -> World:
    """Nothing configured, and 60,000 a minute allowed; the figure is that limit over the rate from 8 s to 10 s."""

    def figure(report: Report) -> float:
        return 2_000 / max(1, sum(8_000 <= at_ms < 10_000 for at_ms in report.grants_ms))

    return Fleet(rng, controller(), gateway(rng, seed, 60_000), backlog([0] * 12_000), processes("8")), figure


def tokens(calls: int, charges: str) -> Callable[[random.Random, int], World]:
    """300,000 TPM per 10 s; callers reserve 1,000 output tokens and use 20 to 60 % of what they reserve."""

    def world(rng: random.Random, _: int) -> World:
        costs = [1_000 + rng.randint(10, 60) for _ in range(calls)]
        used: list[int] = []

        def use(rng: random.Random, reserved: int) -> int:
            used.append(int(reserved * rng.uniform(0.2, 0.6)))
            return used[-1]

        upstream = Gateway.drawn(rng, ("window", 10.0), 300_000, charges=charges)
        fleet = Fleet(rng, controller(tpm=300_000), upstream, backlog(costs), processes("4"), use=use)
        return fleet, lambda report: report.span_s / (sum(used if charges == "used" else costs) / 5_000)

    return world


def stepping(told_rpm: float) -> Callable[[random.Random, int], World]:
    """The limit goes 600, 200 after 1 min, 600 again after 3 min, unannounced."""

    def world(rng: random.Random, seed: int) -> World:
        upstream = gateway(rng, seed, 600, steps=[(60_000, 200), (180_000, 600)])
        fleet = Fleet(rng, controller(told_rpm), upstream, backlog([0] * 2_000), processes("4"))
        return fleet, lambda report: report.span_s / (180 + (2_000 - 600 - 400) / 10)

    return world


def pausing(told_rpm: float) -> Callable[[random.Random, int], World]:
    """The credential is told to wait 10 s; the figure counts grants between that being written and its end."""

    def figure(report: Report) -> float:
        return sum(0 <= report.told_to_pause_ms < at_ms < 25_000 for at_ms in report.grants_ms)

    def world(rng: random.Random, seed: int) -> World:
        upstream = gateway(rng, seed, 600, frozen_ms=(15_000, 25_000))
        return Fleet(rng, controller(told_rpm), upstream, backlog([0] * 1_000), processes("4")), figure

    return world


def p95_s(waits_ms: list[float]) -> float:
    return sorted(waits_ms)[int(0.95 * (len(waits_ms) - 1))] / 1_000


def flooded(rng: random.Random, seed: int) -> World:
    """Lane A holds 5,000, lane B of equal weight gets 20 in another process; B's p95 wait over 20 / (its share)."""
    work = {"a": Work(1, [0] * 5_000, [0.0] * 5_000), "b": Work(1, [0] * 20, [10_000.0] * 20)}
    fleet = Fleet(rng, controller(600), gateway(rng, seed, 600), work, [(0, [("a",), ("b",)])])
    return fleet, lambda report: p95_s(report.waits_ms["b"]) / (20 / 5)


def sporadic(told_rpm: float) -> Callable[[random.Random, int], World]:
    """30 requests every 6 s for 5 min, on a bucket that holds but one second's worth; p95 wait in s."""

    def world(rng: random.Random, _: int) -> World:
        at_ms = [6_000.0 * i for i in range(50) for _ in range(30)]
        upstream = gateway(rng, 0, 600, seconds=1.0)
        work = {"interactive": Work(1, [0] * len(at_ms), at_ms)}
        fleet = Fleet(rng, controller(told_rpm), upstream, work, [(0, [("interactive",)] * 4)])
        return fleet, lambda report: p95_s(report.waits_ms["interactive"])

    return world


def steady(told_rpm: float) -> Callable[[random.Random, int], World]:
    """30 min of a limit of 400 RPM that nobody told, or told wrong."""

    def world(rng: random.Random, seed: int) -> World:
        upstream = gateway(rng, seed, 400)
        fleet = Fleet(rng, controller(told_rpm), upstream, backlog([0] * 12_000), processes("4"))
        return fleet, lambda report: report.span_s / 1_800

    return world


def moody(told_rpm: float) -> Callable[[random.Random, int], World]:
    """One call in a hundred is refused whatever the rate: somebody else's storm behind the same gateway."""

    def world(rng: random.Random, seed: int) -> World:
        upstream = gateway(rng, seed, 3_000, moody=0.01, moods=random.Random(seed))
        fleet = Fleet(rng, controller(told_rpm), upstream, backlog([0] * 12_000), processes("4"))
        return fleet, lambda report: report.span_s / 240

    return world


def swept(family: str, kind: tuple[str, float]) -> Callable[[random.Random, int], World]:
    """One random world of a family: latency, network skew and number of processes are drawn, too."""

    def world(rng: random.Random, _: int) -> World:
        rpm = rng.uniform(300, 3_000)
        told = {"configured": rpm, "configured too high": rpm / rng.uniform(0.3, 1)}.get(family, 0)
        upstream = Gateway.drawn(rng, kind, rpm, advertised_rpm=(rpm,) if family == "true headers" else ())
        size: Processes = [(0, [("interactive", "batch")] * rng.randint(1, 12))]
        latency_s, skew_ms = rng.choice((0.3, 0.8, 3, 20)), rng.uniform(5, 250)
        work = backlog([0] * 2_000)
        fleet = Fleet(rng, controller(told), upstream, work, size, latency_s=latency_s, skew_ms=skew_ms)
        return fleet, span_over_ideal(upstream, 2_000)

    return world
