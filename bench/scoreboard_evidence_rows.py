"""The rows of the scoreboard about evidence: troubles of some requests, poison, crowds, and a stranger on the key."""

from typing import Final

from bench.scoreboard_crowds import (
    COLLAPSE_ABOVE,
    COLLAPSE_CALL_S,
    COLLAPSE_SIGMA,
    CROWD_CALL_S,
    CROWD_PER_MINUTE,
    SHARED_PER_MINUTE,
    beside_a_stranger,
    collapsing,
    twice_too_much,
)
from bench.scoreboard_evidence import (
    OLD_S,
    Culprits,
    beside,
    overloaded_calls,
    poisoned,
    quick_failures,
)
from bench.scoreboard_scenario import Play, Scenario

OTHERS: Final = {
    "others not done": 0.01,
    "others' span": 1.5,
    "culprits misnamed": 0,
    "calls of a culprit beyond its own": 0,
    "times shut": 0,
}


def _beside(name: str, says: str, n: int, play: Play, latency_s: float = 0.8) -> Scenario:
    return Scenario(
        name=f"beside-{name}",
        says=says,
        n=n,
        gateway=lambda _: {"requests_per_minute": 600, "latency_median_s": latency_s},
        settings={"requests_per_minute": "600"},
        play=play,
        bars=OTHERS,
    )


_POISON: Final = tuple(
    Scenario(
        name=f"poison-{share:.0%}-{'one' if of else 'all'}".replace("%", ""),
        says=f"{share:.0%} of all requests always get 500, those of {'one tenant' if of else 'all tenants'}",
        n=400,
        gateway=lambda _: {"requests_per_minute": 600},
        settings={"requests_per_minute": "600"},
        play=poisoned(share, of, opens=share > 0.5 and not of),
        bars={"others not done": 0.01, "breaker wrong": 0},
    )
    for of in ("evil", "")
    for share in (0.1, 0.3, 0.6)
)

EVIDENCE: Final = (
    _beside(
        "401",
        "one request always gets 401",
        150,
        beside(Culprits(1, "[[sim:401]]", ("authentication_failed",), 4)),
    ),
    _beside(
        "transient",
        "one transient 401 before 200 whose stamps are old",
        200,
        beside(Culprits(1, "[[sim:401*1]]", calls=2), age_s=OLD_S),
    ),
    _beside(
        "head",
        "40 prompts of one tenant that always get 500 before 100 others",
        100,
        beside(Culprits(40, "[[sim:500]]", ("upstream_error",), 5, "evil")),
    ),
    _beside(
        "heads",
        "40 prompts of two tenants that always get 500 before 100 others",
        100,
        beside(*(Culprits(20, "[[sim:500]]", ("upstream_error",), 5, f"evil-{name}") for name in ("a", "b"))),
    ),
    _beside(
        "timeout",
        "25 requests of a tenant with `timeout: 0.5` among 100 others",
        100,
        beside(Culprits(25, "", ("upstream_timeout",), 2, "hasty", {"timeout": 0.5}), mixed=True),
        latency_s=3.0,
    ),
    _beside(
        "429",
        "one request always gets 429 with Retry-After 5",
        300,
        beside(Culprits(1, "[[sim:429=5]]", ("rate_limited",), 8)),
    ),
    _beside(
        "price",
        "10 requests whose price or tier is refused",
        150,
        beside(
            Culprits(4, "[[sim:too-dear]]", ("quota_exhausted",), 1),
            Culprits(4, "[[sim:prepaid]]", ("quota_exhausted",), 1),
            Culprits(2, "[[sim:flex-429]]", ("upstream_overloaded",), 5),
        ),
    ),
    _beside(
        "524",
        "23 requests of `max_attempts: 1` that get 524 before 200 others",
        200,
        beside(Culprits(23, "[[sim:524]]", ("upstream_timeout",), 1, "evil", {"max_attempts": 1})),
    ),
    Scenario(
        name="quick-500",
        says="30 % of calls get 500 at once, the others succeed after 15 s",
        n=400,
        gateway=lambda _: {"requests_per_minute": 600, "latency_median_s": 15.0, "latency_sigma": 0.2},
        settings={"requests_per_minute": "600"},
        play=quick_failures,
        bars={"lost": 0, "times shut": 0},
    ),
    Scenario(
        name="busy-503",
        says="30 % of calls are answered 503, whatever the load",
        n=600,
        gateway=lambda _: {"requests_per_minute": 600, "fault_rates": {"503": 0.3}},
        settings={"requests_per_minute": "600"},
        play=overloaded_calls,
        bars={"others not done": 0.05, "retries beside first calls": 0.12},
    ),
    *_POISON,
    Scenario(
        name="twice",
        says="arrivals at twice the rate for 5 minutes, deadlines of 15 s, calls of 3 s",
        n=1200,
        gateway=lambda _: {
            "requests_per_minute": CROWD_PER_MINUTE,
            "latency_median_s": CROWD_CALL_S,
            "latency_sigma": 0.3,
        },
        settings={"requests_per_minute": str(CROWD_PER_MINUTE)},
        play=twice_too_much,
        bars={"worst minute below ideal": 0.15, "wasted calls": 0.05},
    ),
    Scenario(
        name="collapse",
        says=f"a gateway that collapses above {COLLAPSE_ABOVE} calls in flight",
        n=6000,
        gateway=lambda _: {
            "collapse_above": COLLAPSE_ABOVE,
            "latency_median_s": COLLAPSE_CALL_S,
            "latency_sigma": COLLAPSE_SIGMA,
        },
        settings={"requests_per_minute": "4800"},
        play=collapsing,
        bars={"below its peak": 0.05, "calls an answer": 1.15},
    ),
    *(
        Scenario(
            name=f"stranger-{name}",
            says=f"a stranger uses 0 to 80 % of the key's limit, {name}",
            n=4500,
            gateway=lambda _: {"requests_per_minute": SHARED_PER_MINUTE},
            settings=settings,
            play=beside_a_stranger,
            bars={"lost": 0, "429s": 0.03, "of the rest unused": 0.1},
        )
        for name, settings in {"known": {"requests_per_minute": str(SHARED_PER_MINUTE)}, "unknown": {}}.items()
    ),
)
