"""The scenarios with several routes: accounts beside each other, a dead key, a broken gateway, orders; and a peer.

Every account of the simulated gateway has one key and one route of the same name, unless said otherwise.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bench.scoreboard_draws import Unknowns, bodies
from bench.scoreboard_measures import (
    NOT_SEEN,
    Limit,
    Played,
    basics,
    between,
    between_s,
    ideal_s,
    passed,
    span_s,
    wait_ms,
)
from bench.scoreboard_world import OWN_BURST_S, World
from worker.devtools.simulator import ReceivedCall

RATES: Final = {"big": 600, "middle": 300, "small": 120}
TOTAL_S: Final = sum(RATES.values()) / 60
REVOKED_S: Final = 60.0
PROBE_S: Final = 9
FIRST_PROBE_S: Final = 0.9
"""A gate is first probed a second after it shut; an earlier refusal met an open one."""
COLD_START_S: Final = 30.0
SPILL_S: Final = 5.0
CLOCKS_S: Final = 0.01
"""The server's clock decides, and a worker's tells when a call started."""
LITELLM: Final = ".venv/litellm/bin/python"

Play = Callable[[World, Unknowns, int], Played]


@dataclass(frozen=True, slots=True)
class Way:
    """One route of the fleet's file."""

    account: str
    rpm: int = 0
    """Of its account, as the fleet is told; 0 = unknown."""
    order: int = 1
    spill_after: str = "0s"
    key: str = ""
    """Of the account's keys; empty: the account's one."""


def gateway_of(unknowns: Unknowns, accounts: Mapping[str, int], keys: int = 1) -> dict[str, Any]:
    """Accounts of the simulator with this many keys each; a call with another key is refused."""
    own = {
        name: {"keys": [key_of(name, number) for number in range(keys)], "requests_per_minute": rpm}
        for name, rpm in accounts.items()
    }
    return {"accounts": own, "keys": ["none"], "burst_s": max(2.5, unknowns.burst_s)}


def key_of(account: str, number: int = 0) -> str:
    return f"sk-{account}-{number}-bench"


def use(world: World, ways: Mapping[str, Way]) -> None:
    """Gives the workers to come a file of these routes."""
    lines = [
        f"[accounts.{name}]\nrequests_per_minute = {rpm}"
        for name, rpm in {w.account: w.rpm for w in ways.values()}.items()
    ]
    for name, way in ways.items():
        (world.logs / f"{name}.key").write_text(way.key or key_of(way.account))
        lines.append(
            f'[routes.{name}]\nurl = "{world.gateway.url}"\nkey_file = "{world.logs}/{name}.key"\n'
            f'account = "{way.account}"\norder = {way.order}\nspill_after = "{way.spill_after}"'
        )
    file = world.logs / "routes.toml"
    file.write_text("\n".join(lines))
    world.settings["config_file"] = str(file)


def three(*, known: bool, from_s: float = 0.0) -> Play:
    """Three accounts of equal order."""

    def play(world: World, unknowns: Unknowns, n: int) -> Played:
        use(world, {name: Way(name, rpm if known else 0) for name, rpm in RATES.items()})
        world.start(4)
        world.enqueue(bodies(n))
        world.drain()
        return _against(world, [(0.0, TOTAL_S)], min(OWN_BURST_S, max(2.5, unknowns.burst_s)), from_s)

    return play


def shared_account(world: World, _: Unknowns, n: int) -> Played:
    """Two keys of one account."""
    use(world, {name: Way("big", RATES["big"], key=key_of("big", at)) for at, name in enumerate(("one", "two"))})
    world.start(4)
    world.enqueue(bodies(n))
    world.drain()
    return _against(world, [(0.0, RATES["big"] / 60)], OWN_BURST_S, 0.0)


def revoked_key(world: World, _: Unknowns, n: int) -> Played:
    """The biggest account's key is revoked in the midst of it, and repaired a minute later."""
    use(world, {name: Way(name, rpm) for name, rpm in RATES.items()})
    world.start(4)
    world.enqueue(bodies(n), lane="batch")
    world.until(lambda: world.answered >= n // 8)
    world.gateway.configure(accounts={"big": {"revoked_keys": [key_of("big")]}})
    world.say("the key is dead")
    dead_ms = time.time() * 1000
    time.sleep(REVOKED_S)
    world.gateway.configure(accounts={"big": {"revoked_keys": []}})
    alive_ms = time.time() * 1000
    world.say("the key is alive")
    world.drain()
    record = world.record()
    refused = [call for call in record.calls if call.status == 401]
    known_s = min((call.at_s + (call.duration_s or 0) for call in refused), default=0.0)
    met, probes = between_s(refused, 0, known_s + FIRST_PROBE_S), between_s(refused, known_s + FIRST_PROBE_S, math.inf)
    rest = (RATES["middle"] + RATES["small"]) / 60
    meanwhile = [call for call in between(passed(record.calls), dead_ms, alive_ms) if call.account != "big"]
    measures = {
        "calls to the dead key beyond those in flight": float(len(between_s(met, known_s, math.inf))),
        "probes of it": float(len(probes)),
        "rest of the rate lost": 1 - len(meanwhile) / ((alive_ms - dead_ms) / 1000 * rest),
        "back after s": _first_s(record.calls, "big", alive_ms),
    }
    notes = {"refused": float(len(refused)), "in flight": float(len(between_s(met, 0, known_s)))}
    return Played(record, basics(record) | measures, [(0.0, TOTAL_S)], notes)


def broken_route(world: World, _: Unknowns, n: int) -> Played:
    """The biggest account answers 503 to everybody from the start."""
    use(world, {name: Way(name, rpm) for name, rpm in RATES.items()})
    world.gateway.configure(accounts={"big": {"fault_rates": {"503": 1.0}}})
    world.start(4)
    world.enqueue(bodies(n), lane="batch")
    world.drain()
    record = world.record()
    rest = (RATES["middle"] + RATES["small"]) / 60
    ideal = ideal_s(len(passed(record.calls)) - OWN_BURST_S * rest, [(0.0, rest)])
    broken = [call for call in record.calls if call.account == "big"]
    measures = {"calls to it": float(len(broken)), "span": span_s(passed(record.calls)) / ideal}
    return Played(record, basics(record) | measures, [(0.0, rest)], {})


def orders(world: World, _: Unknowns, n: int) -> Played:
    """Half of what the first order can serve, then twice as much as it can."""
    use(world, {"first": Way("big", RATES["big"]), "backup": Way("middle", RATES["middle"], 2, f"{SPILL_S:g}s")})
    world.start(4)
    rate, quiet = RATES["big"] / 60, n // 3
    for number in range(quiet):
        world.enqueue(bodies(1, f"Quiet {number}"))
        time.sleep(2 / rate)
    world.drain()
    early = Counter(call.account for call in world.gateway.calls())
    world.enqueue(bodies(n - quiet, "Rush"))
    world.drain()
    record = world.record()
    spilled = [result for result in record.results if result["attempts"][0]["upstream"] == "backup"]
    waits = [wait_ms(result) / 1000 for result in spilled]
    both = [(0.0, rate)], [(0.0, rate + RATES["middle"] / 60)]
    rush = n - quiet
    # All of the rush waits from its first moment: the backup joins after SPILL_S, and then both are busy to the end.
    ideal = SPILL_S + ideal_s(rush - OWN_BURST_S * both[1][0][1] - SPILL_S * rate, both[1])
    measures = {
        "quiet calls by the backup": float(early["middle"]),
        "spilled before s": SPILL_S - CLOCKS_S - min(waits, default=NOT_SEEN),
        "span of the rush": _rush_s(record.calls, quiet) / ideal,
    }
    return Played(record, basics(record) | measures, both[1], {"spilled": float(len(spilled))})


def litellm(world: World, _: Unknowns, n: int) -> Played:
    """The peer: LiteLLM's Router over the same three accounts, told of their limits."""
    command = [LITELLM, "-m", "bench.scoreboard_litellm"]
    world.spawn(
        1, command, {"BENCH_ROUTES": ",".join(f"{name}={rpm}" for name, rpm in RATES.items())}, ready="bench.ready"
    )
    world.enqueue(bodies(n), lane="peer")
    world.drain()
    return _against(world, [(0.0, TOTAL_S)], OWN_BURST_S, 0.0)


def _against(world: World, limit: Limit, head_start_s: float, from_s: float) -> Played:
    """The span of the calls that passed, over the ideal one."""
    record = world.record()
    began = record.calls[0].at_s if record.calls else 0.0
    late = [call for call in passed(record.calls) if call.at_s >= began + from_s]
    head_start = 0.0 if from_s else head_start_s * limit[0][1]
    ideal = ideal_s(len(late) - head_start, limit)
    took_s = (late[-1].at_s - began - from_s) if late else NOT_SEEN
    by_account = Counter(call.account for call in passed(record.calls))
    notes = {"ideal_s": ideal, **{name: float(count) for name, count in by_account.items()}}
    return Played(record, basics(record) | {"span": took_s / ideal if ideal > 0 else 0.0}, limit, notes)


def _first_s(calls: Sequence[ReceivedCall], account: str, since_ms: float) -> float:
    """The time until a second call of the account had passed: the first is a probe."""
    times = [call.wall * 1000 for call in passed(calls) if call.account == account and call.wall * 1000 > since_ms]
    return (times[1] - since_ms) / 1000 if len(times) > 1 else NOT_SEEN


def _rush_s(calls: Sequence[ReceivedCall], quiet: int) -> float:
    return calls[-1].at_s - calls[quiet].at_s if len(calls) > quiet else NOT_SEEN
