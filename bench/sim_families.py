"""Families of worlds for the rules of evidence, and the bar each must hold: what one request meets stays its own."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from oracles.controller.admission import Admission
from oracles.controller.pace import Pace

from bench.sim_gateway import Gateway
from bench.sim_requests import Request, Upstream, World
from bench.sim_upstreams import Collapsing, Moody, Stranger, answers_in

Measures = dict[str, float]
TENANTS = 5
MINUTE_MS = 60_000.0


@dataclass(frozen=True, slots=True)
class Family:
    """A kind of world; `bars` holds for each measure its least or most."""

    name: str
    run: Callable[[random.Random], Measures]
    bars: dict[str, tuple[str, float]]


def admission(rpm: float = 0) -> Admission:
    return Admission(Pace(now_ms=0, rpm=rpm))


def arrivals(rng: random.Random, n: int, per_s: float, **known: Any) -> list[Request]:
    """Requests of several tenants: all at once (`per_s` 0) or as a Poisson stream."""
    at_ms = 0.0
    made: list[Request] = []
    for number in range(n):
        at_ms += rng.expovariate(per_s / 1_000) if per_s else 0.0
        made.append(Request(number, f"t{rng.randrange(TENANTS)}", at_ms, **known))
    return made


def spoil(rng: random.Random, requests: list[Request], share: float, trouble: str, tenant: str = "") -> None:
    """Gives that share of all requests a trouble of their own, all in one tenant's name if named."""
    for request in rng.sample(requests, max(1, round(share * len(requests)))):
        request.trouble, request.culprit = trouble, True
        request.tenant = tenant or request.tenant


def compared(
    rng: random.Random, requests: list[Request], upstream: Callable[[random.Random], Upstream], rpm: float
) -> Measures:
    """Figures of the other requests, with the culprits and without."""
    seed = rng.random()
    others = [
        Request(
            r.number,
            r.tenant,
            r.at_ms,
            r.body,
            r.kind,
            r.deadline_ms,
            r.timeout_ms,
            r.patience_ms,
            enqueued_ms=r.enqueued_ms,
        )
        for r in requests
        if not r.culprit
    ]
    World(random.Random(seed), admission(rpm), upstream(random.Random(seed)), others).run()
    world = World(random.Random(seed), admission(rpm), upstream(random.Random(seed)), requests).run()
    mine = [r for r in requests if not r.culprit]
    done = [r for r in mine if not r.code and r.ended_ms >= 0]
    bad = [r for r in requests if r.culprit]
    return {
        "others done %": 100 * len(done) / len(mine),
        "others span x": span(mine) / max(1.0, span(others)),
        "others p95 x": p95(mine) / max(50.0, p95(others)),
        "culprits answered %": 100 * sum(r.ended_ms >= 0 for r in bad) / len(bad) if bad else 100.0,
        "calls a culprit": max([r.calls for r in bad], default=0),
        "shut": float(any(gated for _, _, _, gated in world.seen.calls)),
    }


def span(requests: list[Request]) -> float:
    return max(r.ended_ms if r.ended_ms >= 0 else 1.2e6 for r in requests) - min(r.at_ms for r in requests)


def p95(requests: list[Request]) -> float:
    waits = sorted((r.ended_ms if r.ended_ms >= 0 else 1.2e6) - r.at_ms for r in requests)
    return waits[int(0.95 * (len(waits) - 1))]


OTHERS = {"others done %": (">=", 99.0), "others span x": ("<=", 1.5), "culprits answered %": (">=", 100.0)}


def few(trouble: Callable[[random.Random], str], most: int = 4) -> Callable[[random.Random], Measures]:
    """One or a few requests that always meet the same, among others of several tenants or of their own."""

    def run(rng: random.Random) -> Measures:
        rpm, latency_s = rng.uniform(300, 1_200), rng.choice((0.01, 0.8, 5))
        requests = arrivals(
            rng, rng.randint(80, 400), rng.choice((0, 0.5 * rpm / 60, 0.8 * rpm / 60)), patience_ms=5_000
        )
        same = rng.choice(("", "t0", "evil"))
        spoil(rng, requests, rng.randint(1, most) / len(requests), trouble(rng), same)
        for request in requests:
            request.enqueued_ms = max(0.0, request.at_ms - rng.choice((0, 30_000)))
        return compared(rng, requests, lambda r: Moody(r, answers_in(latency_s)), rpm)

    return run


def transient(rng: random.Random) -> Measures:
    """Now and then a call is refused with 401, whoever makes it, while impatient callers queue."""
    rpm = rng.uniform(300, 1_200)
    requests = arrivals(rng, 300, 0, patience_ms=rng.choice((0.0, 2_000.0)))
    share = rng.choice((0.003, 0.01, 0.03))
    return compared(rng, requests, lambda r: Moody(r, answers_in(0.8), random_failures=(share, "authentication")), rpm)


def head(most_tenants: int) -> Callable[[random.Random], Measures]:
    """Prompts of one or some tenants that always get 500 stand before everybody else."""

    def run(rng: random.Random) -> Measures:
        rpm, tenants = rng.uniform(300, 1_200), rng.randint(min(2, most_tenants), most_tenants)
        requests = arrivals(rng, rng.randint(100, 300), 0)
        troubles = rng.choice((("failed",), ("failed slow",), ("failed", "failed slow")))
        for request in requests[: rng.randint(20, 60)]:
            request.tenant, request.trouble, request.culprit = (
                f"evil{rng.randrange(tenants)}",
                rng.choice(troubles),
                True,
            )
        latency_s = rng.choice((0.5, 3, 15))
        return compared(rng, requests, lambda r: Moody(r, answers_in(latency_s)), rpm)

    return run


def impatient(rng: random.Random) -> Measures:
    """One tenant's timeout is shorter than any answer."""
    rpm = rng.uniform(300, 1_200)
    requests = arrivals(rng, 300, 0)
    for request in requests:
        if request.tenant == "t0" or (request.tenant == "t1" and rng.random() < 0.5):
            request.timeout_ms, request.culprit = rng.uniform(200, 900), True
    latency_s = rng.choice((3, 8))
    return compared(rng, requests, lambda r: Moody(r, answers_in(latency_s, 0.3)), rpm)


def poisoned(
    share: float, tenant: str, *, opens: bool
) -> tuple[Callable[[random.Random], Measures], dict[str, tuple[str, float]]]:
    """That share of all requests always gets 5xx, at once or slowly; the breaker opens only if it is everybody's."""

    def run(rng: random.Random) -> Measures:
        rpm, latency_s = rng.uniform(600, 3_000), rng.choice((0.3, 3, 15))
        requests = arrivals(rng, 1_000, rng.choice((0, 0.7 * rpm / 60)))
        spoil(rng, requests, share, rng.choice(("failed", "failed", "failed slow")), tenant)
        return compared(rng, requests, lambda r: Moody(r, answers_in(latency_s)), rpm)

    return run, {"shut": ("==", float(opens))} | (OTHERS if not opens else {"others done %": (">=", 99.0)})


def crowded(rng: random.Random) -> Measures:
    """Twice as many arrive as may be called, each with a deadline."""
    rpm, call_s = rng.uniform(60, 300), rng.choice((1, 3, 5))
    per_s = rpm / 60
    requests = arrivals(rng, round(2 * per_s * 300), 2 * per_s)
    for request in requests:
        request.deadline_ms = request.at_ms + call_s * 5_000
    world = World(rng, admission(rpm), Moody(rng, answers_in(call_s)), requests).run()
    minutes = [
        sum(not r.code and m * MINUTE_MS <= r.ended_ms < (m + 1) * MINUTE_MS for r in requests) for m in range(5)
    ]
    wasted = sum(r.calls - (not r.code) for r in requests)
    return {
        "worst minute %": 100 * min(minutes[1:]) / rpm,
        "first minute %": 100 * minutes[0] / (rpm - per_s * call_s * 1.5),
        "wasted %": 100 * wasted / len(world.seen.calls),
    }


def quick(rng: random.Random) -> Measures:
    """30 % of calls get 500 at once, the others succeed after 15 s."""
    rpm = rng.uniform(300, 1_200)
    requests = arrivals(rng, 400, 0, attempts=8)
    share = rng.uniform(0.25, 0.35)
    world = World(rng, admission(rpm), Moody(rng, answers_in(15), random_failures=(share, "failed")), requests).run()
    calls = world.seen.calls
    return {"shut": float(any(gated for *_, gated in calls)), "done %": done_percent(requests)}


def busy(rng: random.Random) -> Measures:
    """30 % of calls are answered 503, whatever the load."""
    rpm = rng.uniform(600, 3_000)
    requests = arrivals(rng, 600, 0)
    share = rng.uniform(0.2, 0.4)
    world = World(rng, admission(rpm), Moody(rng, answers_in(2), random_failures=(share, "overloaded")), requests).run()
    return {
        "done %": done_percent(requests),
        "limit": world.admission.flight.limit,
        "calls/answers": len(world.seen.calls) / 600,
    }


def done_percent(requests: list[Request]) -> float:
    return 100 * sum(not r.code and r.ended_ms >= 0 for r in requests) / len(requests)


def collapse(rng: random.Random) -> Measures:
    """The gateway collapses above so many in flight; the figure is its goodput after the first minute."""
    call_s, most = rng.choice((1, 2, 4)), rng.choice((20, 40, 80))
    upstream = Collapsing(
        rng, answers_in(call_s, rng.choice((0.2, 0.5))), most, rng.choice((1.5, 2, 3)), rng.uniform(1.2, 2)
    )
    peak_per_s = most / call_s
    requests = arrivals(rng, round(peak_per_s * 300), 0)
    world = World(rng, admission(peak_per_s * 60 * 4), upstream, requests, limit_s=300).run()
    good = sum(not r.code and 60_000 <= r.ended_ms < 300_000 for r in requests)
    answered = sum(not r.code and r.ended_ms >= 0 for r in requests)
    return {
        "goodput %": 100 * good / (peak_per_s * 240),
        "calls/answers": len(world.seen.calls) / answered,
        "limit/most": world.admission.flight.limit / most,
    }


def outage(verdict: str, length_s: float = 60) -> Callable[[random.Random], Measures]:
    """Everybody meets it, from one moment to another."""

    def run(rng: random.Random) -> Measures:
        rpm, latency_s = rng.uniform(300, 1_200), rng.choice((0.1, 0.8, 5))
        requests = arrivals(rng, round(rpm * 4), 0)
        for request in requests:
            request.tenant = request.tenant if rpm > 600 else "one"
        end_ms = 30_000 + length_s * 1_000
        world = World(rng, admission(rpm), Moody(rng, answers_in(latency_s), (30_000, end_ms, verdict)), requests)
        calls = world.run().seen.calls
        return {
            "calls while down": sum(30_000 <= at < end_ms for at, *_ in calls),
            "calls while shut": sum(gated and 30_000 <= at < end_ms for at, _, _, gated in calls),
            "moves after s": next((at - end_ms for at, _, _, gated in calls if at > end_ms and not gated), 9e9) / 1_000,
            "done %": done_percent(requests),
        }

    return run


def shared_key(*, known: bool) -> Callable[[random.Random], Measures]:
    """A stranger on the same key; ideal is what it leaves of the limit, minute by minute."""

    def run(rng: random.Random) -> Measures:
        rpm = rng.uniform(600, 1_200)
        gateway = Gateway.drawn(rng, rng.choice((("bucket", 0.0), ("window", 10.0), ("window", 60.0))), rpm)
        stranger = Stranger(rng, gateway)
        requests = arrivals(rng, round(rpm * 30), 0)
        upstream = Moody(rng, answers_in(0.8), limit=gateway)
        others = [(0.0, stranger.step)]
        world = World(rng, admission(rpm if known else 0), upstream, requests, limit_s=900, others=others).run()
        calls = [(at, verdict) for at, verdict, *_ in world.seen.calls if at > 120_000]
        passed = sum(verdict == "ok" for _, verdict in calls)
        left = rpm * 13 - sum(at > 120_000 for at in stranger.passed)
        return {
            "429s %": 100 * (1 - passed / max(1, len(calls))),
            "of what is left %": 100 * passed / left,
            "lost": sum(bool(r.code) for r in requests),
        }

    return run


def quota(*, known: bool) -> Callable[[random.Random], Measures]:
    """The limits of before, with the rules of evidence in force."""

    def run(rng: random.Random) -> Measures:
        rpm = rng.uniform(300, 3_000)
        gateway = Gateway.drawn(rng, rng.choice((("bucket", 0.0), ("window", 10.0), ("window", 60.0))), rpm)
        requests = arrivals(rng, 2_000, 0)
        for request in requests:
            request.tenant = request.tenant if rng.random() < 0.5 else "t0"
        world = World(rng, admission(rpm if known else 0), Moody(rng, answers_in(0.8), limit=gateway), requests).run()
        calls = world.seen.calls
        ideal_s = 2_000 / (rpm / 60) - min(2.0, gateway.seconds)
        return {
            "429s %": 100 * sum(v == "throttled" for _, v, *_ in calls) / len(calls),
            "span x": (calls[-1][0] - calls[0][0]) / 1_000 / ideal_s,
            "lost": sum(bool(r.code) for r in requests),
        }

    return run
