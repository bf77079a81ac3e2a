"""The scenarios in which something happens to the gateway: a pause, a dead key, an outage, a flood."""

import contextlib
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import redis

from bench.scoreboard_draws import Unknowns, bodies
from bench.scoreboard_measures import NOT_SEEN, Played, basics, between, passed, percentile, span_s, wait_ms
from bench.scoreboard_scenario import Play
from bench.scoreboard_world import KEY, Record, World

TOLD_S: Final = (10, 10, 10, 10, 10, 10, 10, 2)
INCIDENT_S: Final = 60.0
LATE_MS: Final = 250
PROBE_S: Final = 10
FLOODED: Final = 20
QUOTA: Final = "responses:quota:default"


@dataclass(slots=True)
class Witness:
    """Redis' own record of grants and pauses, by its own clock and in its own order (MONITOR)."""

    redis_url: str
    grants_ms: list[float] = field(default_factory=list[float])
    pauses_ms: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])
    """(written at, until), of those longer than a second."""

    def start(self) -> None:
        ready = threading.Event()
        threading.Thread(target=self._watch, args=(ready,), daemon=True).start()
        ready.wait(10)

    def _watch(self, ready: threading.Event) -> None:
        client: Any = redis.Redis.from_url(self.redis_url, socket_timeout=None)  # pyright: ignore[reportUnknownMemberType]  # untyped kwargs
        with contextlib.suppress(redis.RedisError), client.monitor() as monitor:  # until the server is gone
            ready.set()
            for seen in monitor.listen():
                self._note(seen["time"] * 1000, seen["command"].split())

    def _note(self, at_ms: float, command: list[str]) -> None:
        match [part.strip('"') for part in command[:2]]:
            case ["ZADD", "responses:permits:default"] if "XX" not in command:
                self.grants_ms.append(at_ms)
            case ["HSET", key] if key == QUOTA and "pause_until" in command:
                until_ms = float(command[command.index("pause_until") + 1])
                if until_ms > at_ms + 1000:
                    self.pauses_ms.append((at_ms, until_ms))
            case _:
                pass


def retry_after(world: World, _: Unknowns, n: int) -> Played:
    """Calls in flight at once are told 10 s and, last, 2 s: which must not shorten anything."""
    asked = list(bodies(n))
    for number, seconds in enumerate(TOLD_S):  # side by side, so that no other answer comes between
        asked[n // 2 + number]["input"][0]["content"] += f" [[sim:429={seconds}*1]] [[sim:slow=0.7*1]]"
    witness = Witness(world.redis_url)
    witness.start()
    world.start(4)
    world.enqueue(asked)
    world.drain()
    record = world.record()
    pauses = witness.pauses_ms
    granted = [at for at in witness.grants_ms if any(written < at < until for written, until in pauses)]
    late = {call.number for written, until in pauses for call in between(record.calls, written + LATE_MS, until)}
    measures = {
        "grants in pause": len(granted) if pauses else NOT_SEEN,
        "calls > 250 ms into it": len(late) if pauses else NOT_SEEN,
    }
    until_ms = max((until for _, until in pauses), default=NOT_SEEN)
    resumed_ms = min((at for at in witness.grants_ms if at >= until_ms), default=NOT_SEEN)
    notes = {
        "resumed_ms": resumed_ms - until_ms,
        "span_s": span_s(record.calls),
        "pauses": len({until for _, until in pauses}),
    }
    return Played(record, basics(record) | measures, [(0.0, 10.0)], notes)


def without_account(setting: str, status: int) -> Play:
    """The credential is of no use for a while: its key is revoked, or its wallet is empty."""

    def play(world: World, _: Unknowns, n: int) -> Played:
        world.start(4)
        world.enqueue(bodies(n + n // 10), lane="batch")
        world.until(lambda: world.answered >= n // 10)
        world.gateway.configure(**{setting: [KEY]})
        world.say(f"{setting}: ours")
        _wait(world, INCIDENT_S)
        world.gateway.configure(**{setting: []})
        well_ms = time.time() * 1000
        world.say("all is well")
        world.drain()
        record = world.record()
        refused = [call for call in record.calls if call.status == status]
        allowed = (refused[0].in_flight if refused else 0) + 2 + INCIDENT_S / PROBE_S
        measures = {
            "calls beyond allowance": max(0.0, len(refused) - allowed),
            "resumed after s": _first_passed_s(record, well_ms, 2),  # the first is a probe
        }
        notes = {"refused": len(refused), "allowed": allowed}
        return Played(record, basics(record) | measures, [(0.0, 10.0)], notes)

    return play


def outage(world: World, _: Unknowns, n: int) -> Played:
    """It begins while calls succeed, which is what makes it hard to see."""
    world.start(4)
    world.enqueue(bodies(n + n // 2), lane="batch")  # whose patience lasts until the deadline
    world.until(lambda: world.answered >= n // 2)
    world.gateway.configure(fault_rates={"503": 1.0})
    world.say("the gateway is down")
    down_ms = time.time() * 1000
    world.until(lambda: _opened_ms(world), INCIDENT_S)
    opened_ms = _opened_ms(world) or down_ms
    _wait(world, INCIDENT_S - (time.time() * 1000 - down_ms) / 1000)
    world.gateway.configure(fault_rates={})
    world.say("the gateway is up")
    up_ms = time.time() * 1000
    world.drain()
    record = world.record()
    failed = [call for call in record.calls if call.status == 503]
    measures = {"calls after opening": len(between(failed, opened_ms, up_ms))}
    notes = {
        "failed": len(failed),
        "opened_s": (opened_ms - down_ms) / 1000,
        "back_s": _first_passed_s(record, up_ms),
    }
    return Played(record, basics(record) | measures, [(0.0, 50.0)], notes)


def _opened_ms(world: World) -> float | None:
    gate, since = world.redis.hmget(QUOTA, "gate", "gate_since")
    return float(since) if gate == b"breaker_open" else None


def _first_passed_s(record: Record, since_ms: float, count: int = 1) -> float:
    """After how long the first `count` calls since then had passed."""
    times = [call.wall * 1000 for call in passed(record.calls) if call.wall * 1000 > since_ms]
    return (times[count - 1] - since_ms) / 1000 if len(times) >= count else NOT_SEEN


def flood(world: World, _: Unknowns, n: int) -> Played:
    """Lanes of equal weight in processes of their own; half of 600 a minute is due to B."""
    world.start(2, lanes="interactive=1")
    world.start(2, lanes="batch=1")
    world.enqueue(bodies(n))
    _wait(world, 15.0)
    world.enqueue(bodies(FLOODED, "Brief question"), lane="batch")
    world.until(lambda: len(_of_batch(world)) >= FLOODED)
    brief, record = _of_batch(world), world.record()
    waits = [wait_ms(result) / 1000 for result in brief]
    fair_s = FLOODED / (600 / 60 / 2)
    ratio = percentile(waits, 0.95) / fair_s if len(waits) == FLOODED else NOT_SEEN
    measures = {"429s": basics(record)["429s"], "B's p95 wait / fair": ratio}
    return Played(record, measures, [(0.0, 10.0)], {"p50_wait_s": percentile(waits, 0.5)})


def _of_batch(world: World) -> list[Mapping[str, Any]]:
    return [result for result in world.results() if result["lane"] == "batch"]


def _wait(world: World, seconds: float) -> None:
    end = time.monotonic() + seconds
    world.until(lambda: time.monotonic() > end)
