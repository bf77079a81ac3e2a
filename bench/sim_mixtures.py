"""The families, and worlds in which several things go wrong at once."""

import random
from collections.abc import Callable

from bench.sim_families import (
    OTHERS,
    Family,
    Measures,
    arrivals,
    busy,
    collapse,
    compared,
    crowded,
    few,
    head,
    impatient,
    outage,
    poisoned,
    quick,
    quota,
    shared_key,
    spoil,
    transient,
)
from bench.sim_upstreams import Moody, answers_in

TROUBLES = (
    "authentication",
    "quota",
    "price",
    "throttled",
    "throttled 5",
    "throttled 30",
    "failed",
    "failed slow",
    "overloaded",
    "overloaded slow",
)


def mixture(rng: random.Random) -> Measures:
    """Faulty tenants of every kind at once, each with a trouble of its own, beside healthy ones."""
    rpm, latency_s = rng.uniform(300, 3_000), rng.choice((0.05, 0.8, 3, 15))
    requests = arrivals(rng, rng.randint(200, 800), rng.choice((0, 0.4 * rpm / 60, 0.7 * rpm / 60)), patience_ms=20_000)
    for number in range(rng.randint(1, 3)):
        spoil(rng, requests, rng.choice((0.005, 0.02, 0.1)), rng.choice(TROUBLES), rng.choice(("", f"evil{number}")))
    moody = rng.choice((0.0, 0.0, 0.01))
    kind = rng.choice(("failed", "authentication", "throttled"))
    return compared(rng, requests, lambda r: Moody(r, answers_in(latency_s), random_failures=(moody, kind)), rpm)


def pick(*troubles: str) -> Callable[[random.Random], str]:
    return lambda rng: rng.choice(troubles)


SHARED_KEY = {"429s %": ("<=", 3.0), "of what is left %": (">=", 90.0), "lost": ("<=", 0.0)}
FAMILIES = [
    Family("one 401", few(pick("authentication")), OTHERS),
    Family("one 402, scope unknown", few(pick("quota")), OTHERS),
    Family("price refused", few(pick("price"), 60), OTHERS),
    Family("always 429", few(pick("throttled", "throttled 5", "throttled 20")), OTHERS),
    Family("transient 401", transient, OTHERS),
    Family("poison at the head", head(1), OTHERS),
    Family("poison heads", head(3), OTHERS),
    Family("timeout of one tenant", impatient, OTHERS),
    *(Family(f"poison {share:.0%} of one tenant", *poisoned(share, "evil", opens=False)) for share in (0.1, 0.3, 0.6)),
    *(Family(f"poison {share:.0%} of all", *poisoned(share, "", opens=share > 0.5)) for share in (0.1, 0.3, 0.6)),
    Family("quick 500s, slow answers", quick, {"shut": ("==", 0.0), "done %": (">=", 99.0)}),
    Family("30 % 503", busy, {"done %": (">=", 95.0), "calls/answers": ("<=", 9.0)}),
    Family(
        "2x overload",
        crowded,
        {"worst minute %": (">=", 85.0), "first minute %": (">=", 85.0), "wasted %": ("<=", 5.0)},
    ),
    Family("collapse", collapse, {"goodput %": (">=", 95.0), "calls/answers": ("<=", 1.15)}),
    Family(
        "key revoked 60 s",
        outage("authentication"),
        {"calls while shut": ("<=", 8.0), "moves after s": ("<=", 12.0), "done %": (">=", 100.0)},
    ),
    Family(
        "wallet empty 60 s",
        outage("quota"),
        {"calls while shut": ("<=", 8.0), "moves after s": ("<=", 12.0), "done %": (">=", 100.0)},
    ),
    Family(
        "503 for 60 s",
        outage("overloaded"),
        {"calls while shut": ("<=", 7.0), "moves after s": ("<=", 17.0), "done %": (">=", 99.0)},
    ),
    Family(
        "500 for 60 s",
        outage("failed"),
        {"calls while shut": ("<=", 7.0), "moves after s": ("<=", 17.0), "done %": (">=", 99.0)},
    ),
    Family(
        "silence for 120 s", outage("silence", 120), {"calls while shut": ("<=", 9.0), "moves after s": ("<=", 17.0)}
    ),
    Family("stranger, limit known", shared_key(known=True), SHARED_KEY),
    Family("stranger, limit unknown", shared_key(known=False), SHARED_KEY),
    Family(
        "quota, limit known", quota(known=True), {"429s %": ("<=", 1.0), "span x": ("<=", 1.05), "lost": ("<=", 0.0)}
    ),
    Family("quota, limit unknown", quota(known=False), {"429s %": ("<=", 5.0), "lost": ("<=", 0.0)}),
    Family("mixture", mixture, OTHERS),
]


def print_families(runs: int, only: str) -> None:
    """Percentiles of each measure, and the share of worlds that hold its bar."""
    print(f"{'family':26} {'measure':20} {'p1':>8} {'p10':>8} {'p50':>8} {'p90':>8} {'p99':>8}  bar       holds")
    for family in FAMILIES:
        if only not in family.name:
            continue
        worlds = [family.run(random.Random(f"{family.name} {seed}")) for seed in range(runs)]
        for measure in worlds[0]:
            values = sorted(world[measure] for world in worlds)
            columns = " ".join(f"{values[int(p * (runs - 1))]:8.2f}" for p in (0.01, 0.1, 0.5, 0.9, 0.99))
            sign, bar = family.bars.get(measure, ("", 0.0))
            held = sum(_holds(value, sign, bar) for value in values) / runs
            verdict = f"{sign} {bar:<6g} {held:6.1%}" if sign else ""
            print(f"{family.name:26} {measure:20} {columns}  {verdict}", flush=True)


def _holds(value: float, sign: str, bar: float) -> bool:
    return {"<=": value <= bar, ">=": value >= bar, "==": value == bar, "": True}[sign]
