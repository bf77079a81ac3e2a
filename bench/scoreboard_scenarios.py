"""The scenarios: a gateway, what is done to it and to the fleet, and the bars that must hold.

The gateways of the rows with "no headers" answer a call over the limit with an empty 429, as new-api's own limiter
does. Ideal is what passes under the limit after min(own burst, gateway's burst) has passed at once.
"""

import math
import sys
from collections.abc import Callable, Iterator
from typing import Final

from bench.scoreboard_draws import Body, Unknowns, bodies, brief_bodies, long_bodies
from bench.scoreboard_evidence_rows import EVIDENCE
from bench.scoreboard_incidents import PROBE_S, flood, outage, retry_after, without_account
from bench.scoreboard_measures import Limit, Played, after, basics, ideal_s, passed, span_s
from bench.scoreboard_route_rows import ROUTES
from bench.scoreboard_scenario import Play, Scenario
from bench.scoreboard_world import OWN_BURST_S, World

COLD_START_S: Final = 30.0
TOKENS_PER_MINUTE: Final = 300_000
RISE_S, FALL_S = 60.0, 120.0

Staffing = Callable[[World, int], None]


def fixed(processes: int) -> Staffing:
    def staff(world: World, n: int) -> None:
        world.start(processes)
        world.enqueue(bodies(n))
        world.drain()

    return staff


def resized(world: World, n: int) -> None:
    """4 -> 8 -> 2 processes, the newcomers and the leavers in the midst of it."""
    workers = world.start(4)
    world.enqueue(bodies(n))
    world.until(lambda: world.answered >= n / 3)
    workers += world.start(4)
    world.until(lambda: world.answered >= 2 * n / 3)
    world.stop(workers[:6])
    world.drain()


def split(world: World, n: int) -> None:
    """Interactive and batch in processes of their own."""
    world.start(2, lanes="interactive=4")
    world.start(2, lanes="batch=1")
    world.enqueue(bodies(n // 2))
    world.enqueue(bodies(n - n // 2), lane="batch")
    world.drain()


def celery(world: World, n: int) -> None:
    """The recipe of every blog, four workers of 25 threads."""
    command = [sys.executable, "-m", "celery", "-A", "bench.scoreboard_celery", "worker", "-P", "threads", "-c", "25"]
    for number in range(4):
        world.spawn(1, [*command, "-n", f"peer{number}@%h"], {}, ready="bench.ready")
    world.enqueue(bodies(n), lane="peer", task="bench.ask")
    world.drain(lambda: not world.redis.llen("responses.peer") and not world.redis.hlen("unacked"))


def steady(
    rate: Callable[[Unknowns], float], staff: Staffing, *, from_s: float = 0.0, own_burst_s: float = OWN_BURST_S
) -> Play:
    """One limit throughout; the span counts from `from_s` on."""

    def play(world: World, unknowns: Unknowns, n: int) -> Played:
        staff(world, n)
        head_start_s = min(own_burst_s, unknowns.burst_s)
        return measured(world, [(0.0, rate(unknowns) / 60)], head_start_s, from_s=from_s)

    return play


def dropped(world: World, unknowns: Unknowns, n: int) -> Played:
    """The limit falls to a third and comes back; nobody says so."""
    scale = n / 2000
    rise_s, fall_s = RISE_S * scale, (RISE_S + FALL_S) * scale
    world.start(4)
    world.enqueue(bodies(n))
    world.until(lambda: world.stats.calls)
    for moment_s, rate in ((rise_s, 200), (fall_s, 600)):
        world.until(lambda moment_s=moment_s: world.since_first_call_s >= moment_s)
        world.gateway.configure(requests_per_minute=rate)
        world.say(f"the limit is {rate} now")
    world.drain()
    return measured(world, [(0.0, 10), (rise_s, 200 / 60), (fall_s, 10)], min(OWN_BURST_S, unknowns.burst_s))


def tokens(asked: Callable[[int, int], Iterator[Body]]) -> Play:
    """The gateway counts at admission what was reserved and returns nothing, as OpenAI's does."""

    def play(world: World, unknowns: Unknowns, n: int) -> Played:
        world.start(4)
        world.enqueue(asked(n, unknowns.seed))
        world.drain()
        record = world.record()
        total = sum(call.tokens for call in passed(record.calls))
        span = span_s(record.calls) / ideal_s(total, [(0.0, TOKENS_PER_MINUTE / 60)])
        limit = [(0.0, TOKENS_PER_MINUTE / 60 * len(passed(record.calls)) / total)]
        return Played(record, basics(record) | {"span": span}, limit, {"tokens": total})

    return play


def measured(world: World, limit: Limit, head_start_s: float, *, from_s: float = 0.0) -> Played:
    """The span against the ideal one: at most `head_start_s` of the limit passes at once, the rest at the limit."""
    record = world.record()
    late = after(record.calls, from_s) if from_s else record.calls
    ideal = ideal_s(len(passed(late)) - head_start_s * limit[0][1], limit)
    span = (span_s(record.calls) - from_s) / ideal if ideal > 0 else 0.0
    return Played(record, basics(record) | {"span": span}, limit, {"ideal_s": ideal})


def _configured(rate: int, n: int) -> list[Scenario]:
    shapes = {
        "4": ("4 processes", fixed(4)),
        "8": ("8 processes", fixed(8)),
        "4-8-2": ("4 -> 8 -> 2 processes", resized),
        "lanes": ("a lane to each pair of processes", split),
    }
    return [
        Scenario(
            name=f"rpm{rate}-{name}",
            says=f"RPM {rate:,} configured, no headers: {says}",
            n=n,
            gateway=lambda _: {"requests_per_minute": rate},
            settings={"requests_per_minute": str(rate)},
            play=steady(lambda _: rate, staff),
            bars={"lost": 0, "429s": 0.01, "span": 1.10},
        )
        for name, (says, staff) in shapes.items()
    ]


_UNKNOWN: Final[Callable[[Unknowns], float]] = lambda unknowns: unknowns.rate  # noqa: E731  # a value among values

SCENARIOS: Final = (
    *_configured(600, 400),
    *_configured(3000, 2000),
    Scenario(
        name="moody",
        says="RPM 3,000 configured, 1 % of calls refused at any rate",
        n=2000,
        gateway=lambda _: {"requests_per_minute": 3000, "fault_rates": {"429": 0.01}},
        settings={"requests_per_minute": "3000"},
        play=steady(lambda _: 3000, fixed(4)),
        bars={"lost": 0, "429s": 0.02, "span": 1.25},
    ),
    Scenario(
        name="headers",
        says="limit unknown, OpenAI's headers",
        n=2000,
        gateway=lambda unknowns: {
            "requests_per_minute": unknowns.rate,
            "headers": "openai",
            "rate_limit_fault": "429",
        },
        play=steady(_UNKNOWN, fixed(4)),
        bars={"lost": 0, "429s": 0.03, "span": 1.15},
    ),
    Scenario(
        name="unknown",
        says="limit unknown, no headers (span after 30 s)",
        n=2000,
        gateway=lambda unknowns: {"requests_per_minute": unknowns.rate},
        play=steady(_UNKNOWN, fixed(4), from_s=COLD_START_S),
        bars={"lost": 0, "429s": 0.05, "span": 1.25},
    ),
    *(
        Scenario(
            name=f"tokens-{name}",
            says=f"TPM configured, enforced per 10 s, {name} answers",
            n=320,
            gateway=lambda _: {"tokens_per_minute": TOKENS_PER_MINUTE, "tokens_window_s": 10.0},
            settings={"tokens_per_minute": str(TOKENS_PER_MINUTE)},
            play=tokens(asked),
            bars={"lost": 0, "429s": 0.01, "span": 1.08},
        )
        for name, asked in {"long": long_bodies, "brief": brief_bodies}.items()
    ),
    Scenario(
        name="drop",
        says="limit 600 -> 200 -> 600 unannounced, no headers",
        n=2000,
        gateway=lambda _: {"requests_per_minute": 600},
        play=dropped,
        bars={"lost": 0, "429s": 0.06, "span": 1.35},
    ),
    Scenario(
        name="retry-after",
        says="Retry-After 10 s for the whole credential",
        n=250,
        gateway=lambda _: {"requests_per_minute": 600, "headers": "retry-after"},
        settings={"requests_per_minute": "600"},
        play=retry_after,
        bars={"lost": 0, "grants in pause": 0, "calls > 250 ms into it": 0},
    ),
    *(
        Scenario(
            name=name,
            says=f"{says} for 60 s, 500 queued in batch",
            n=500,
            gateway=lambda _: {"requests_per_minute": 600},
            settings={"requests_per_minute": "600", "probe_interval": f"{PROBE_S}s"},
            play=without_account(setting, status),
            bars={"lost": 0, "calls beyond allowance": 0, "resumed after s": 15},
        )
        for name, says, setting, status in (
            ("dead-key", "key revoked", "revoked_keys", 401),
            ("empty-wallet", "wallet empty", "empty_wallets", 403),
        )
    ),
    Scenario(
        name="outage",
        says="503 for 60 s, 2,000 queued",
        n=2000,
        gateway=lambda _: {"requests_per_minute": 3000},
        settings={"requests_per_minute": "3000"},
        play=outage,
        bars={"lost": 0, "calls after opening": 60},
    ),
    Scenario(
        name="flood",
        says="lane A flooded with 5,000, lane B gets 20",
        n=5000,
        gateway=lambda _: {"requests_per_minute": 600},
        settings={"requests_per_minute": "600"},
        play=flood,
        bars={"B's p95 wait / fair": 1.5},
    ),
    *EVIDENCE,
    *ROUTES,
    Scenario(
        name="celery",
        says="peer: Celery autoretry_for, backoff, jitter; RPM 600",
        n=400,
        gateway=lambda _: {"requests_per_minute": 600, "headers": "openai", "rate_limit_fault": "429"},
        play=steady(lambda _: 600, celery, own_burst_s=math.inf),
        bars={},
    ),
)
