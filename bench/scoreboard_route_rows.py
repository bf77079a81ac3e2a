"""The rows of the scoreboard with several routes; `scoreboard_routes` plays them."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from bench.scoreboard_draws import Unknowns
from bench.scoreboard_routes import (
    COLD_START_S,
    PROBE_S,
    RATES,
    REVOKED_S,
    broken_route,
    gateway_of,
    litellm,
    orders,
    revoked_key,
    shared_account,
    three,
)
from bench.scoreboard_scenario import Scenario

_THREE: Final[Callable[[Unknowns], Mapping[str, Any]]] = lambda unknowns: gateway_of(unknowns, RATES)  # noqa: E731  # a value among values
ROUTES: Final = (
    Scenario(
        name="routes-known",
        says="accounts of 600, 300 and 120 a minute, equal order, limits known",
        n=1000,
        gateway=_THREE,
        play=three(known=True),
        bars={"lost": 0, "429s": 0.01, "span": 1 / 0.95},
    ),
    Scenario(
        name="routes-unknown",
        says="the same, limits unknown (span after 30 s)",
        n=2000,
        gateway=_THREE,
        play=three(known=False, from_s=COLD_START_S),
        bars={"lost": 0, "429s": 0.03, "span": 1 / 0.90},
    ),
    Scenario(
        name="routes-shared",
        says="two routes on one account of 600 a minute",
        n=400,
        gateway=lambda unknowns: gateway_of(unknowns, {"big": RATES["big"]}, keys=2),
        play=shared_account,
        bars={"lost": 0, "429s": 0, "span": 1.10},
    ),
    Scenario(
        name="routes-revoked",
        says="the biggest account's key revoked for 60 s",
        n=1600,
        gateway=_THREE,
        settings={"probe_interval": f"{PROBE_S}s"},
        play=revoked_key,
        bars={
            "lost": 0,
            "calls to the dead key beyond those in flight": 3,
            "probes of it": REVOKED_S // PROBE_S + 2,
            "rest of the rate lost": 0.05,
            "back after s": 10,
        },
    ),
    Scenario(
        name="routes-broken",
        says="the biggest account answers 503 to everybody",
        n=400,
        gateway=_THREE,
        play=broken_route,
        bars={"lost": 0, "span": 1.10},
    ),
    Scenario(
        name="routes-orders",
        says="a backup of 300 a minute with spill_after 5 s behind 600",
        n=900,
        gateway=lambda unknowns: gateway_of(unknowns, {"big": RATES["big"], "middle": RATES["middle"]}),
        play=orders,
        bars={"lost": 0, "429s": 0.01, "quiet calls by the backup": 0, "spilled before s": 0, "span of the rush": 1.10},
    ),
    Scenario(
        name="routes-litellm",
        says="peer: LiteLLM's Router 1.106.2 over the three accounts, limits known",
        n=1000,
        gateway=_THREE,
        play=litellm,
        bars={},
    ),
)
