"""The scenarios in which some requests have troubles of their own, among others who must not feel them.

A culprit's prompt says what the gateway makes of its calls; its tag is `bad`, that of the others is `good`.
"""

import itertools
import json
import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from bench.scoreboard_draws import Unknowns, body
from bench.scoreboard_measures import NOT_SEEN, Played, basics, ideal_s
from bench.scoreboard_scenario import Play
from bench.scoreboard_world import OWN_BURST_S, Record, World
from worker.devtools.simulator import ReceivedCall

PER_SECOND: Final = 10.0
"""600 a minute, as the workers are told and the gateway serves."""
TENANTS: Final = 5
SHUT: Final = "upstream.shut"
OLD_S: Final = 45.0
"""Longer than the patience of the interactive lane."""
LONGEST_S: Final = 600.0
PUBLISHED_S: Final = 5.0
MOST_FAILURES: Final = 4

Envelope = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Culprits:
    """So many requests with a trouble of their own."""

    count: int
    marker: str
    codes: tuple[str, ...] = ()
    """The answers that name it; empty: it passes, and they complete."""
    calls: int = 1
    """The most that one of them may make."""
    tenant: str = ""
    """Empty: one of those that the others have."""
    known: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def envelopes(self, first: int) -> list[Envelope]:
        return [
            asked(f"{self.marker} [[id:bad-{number}]]", self.tenant or tenant(number), **self.known)
            for number in range(first, first + self.count)
        ]


def tenant(number: int) -> str:
    return f"t{number % TENANTS}"


def asked(prompt: str, of: str, **known: Any) -> Envelope:
    return {"body": body(f"{prompt} Question?", 64), "tenant": of, **known}


def good(count: int, marker: str = "", **known: Any) -> list[Envelope]:
    return [asked(f"{marker} [[id:good-{number}]]", tenant(number), **known) for number in range(count)]


def beside(*culprits: Culprits, mixed: bool = False, age_s: float = 0.0) -> Play:
    """The culprits stand before the others, or `mixed` among them; all were enqueued `age_s` ago."""

    def play(world: World, unknowns: Unknowns, n: int) -> Played:
        starts = itertools.accumulate([0, *(one.count for one in culprits)])
        bad = [envelope for one, first in zip(culprits, starts, strict=False) for envelope in one.envelopes(first)]
        everybody = bad + good(n)
        if mixed:
            random.Random(unknowns.seed).shuffle(everybody)
        world.ask(everybody, enqueued_at=datetime.now(UTC) - timedelta(seconds=age_s))
        world.start(2)
        finish(world)
        return blamed(world, everybody, culprits)

    return play


def blamed(world: World, everybody: Sequence[Envelope], culprits: Sequence[Culprits]) -> Played:
    """The others' share and span, and what the culprits were answered."""
    record = world.record()
    mine = {f"r{number}" for number, one in enumerate(everybody) if "[[id:good" in _prompt(one)}
    spoilt = [one for one in record.results if one["request_id"] not in mine]
    named = {code for one in culprits for code in one.codes} or {"completed"}
    ideal = ideal_s(len(mine) - OWN_BURST_S * PER_SECOND, [(0.0, PER_SECOND)])
    bad = sum(one.count for one in culprits)
    measures = {
        "others not done": 1 - sum(one["request_id"] in mine for one in completed(record)) / len(mine),
        "others' span": last_s(record.calls, "good") / ideal,
        "culprits misnamed": float(bad - sum(_code(one) in named for one in spoilt)),
        "calls of a culprit beyond its own": float(_most_calls(record.calls) - max(one.calls for one in culprits)),
        "times shut": float(times_shut(world, until=max(call.wall for call in record.calls if _is_good(call)))),
    }
    return Played(record, measures, [(0.0, PER_SECOND)], basics(record) | {"codes": float(len(named))})


def poisoned(share: float, of: str, *, opens: bool) -> Play:
    """So many requests always get 500; only where they are everybody's does the breaker open."""

    def play(world: World, unknowns: Unknowns, n: int) -> Played:
        rng = random.Random(unknowns.seed)
        bad = {*rng.sample(range(n), round(share * n))}
        one = Culprits(1, "[[sim:500]]", tenant=of, known={"max_attempts": 2})
        envelopes = [one.envelopes(at)[0] if at in bad else good(at + 1)[-1] for at in range(n)]
        world.ask(envelopes, lane="batch")  # whose patience lasts until the deadline
        world.start(2)
        mine = n - len(bad)
        if opens:  # the breaker lets the last culprits be called after hours
            world.until(lambda: world.stats.by_status.get("200", 0) >= mine, LONGEST_S)
            world.until(lambda: sum(one["outcome"] == "completed" for one in world.results()) >= mine, PUBLISHED_S)
        else:
            finish(world)
        record = world.record()
        shut = times_shut(world) > 0
        measures = {
            "others not done": 1 - len(completed(record)) / mine,
            "breaker wrong": float(shut != opens),
        }
        return Played(record, measures, [(0.0, PER_SECOND)], basics(record) | {"opened": float(shut)})

    return play


def quick_failures(world: World, unknowns: Unknowns, n: int) -> Played:
    """30 % of all calls get 500 at once; the others are answered after the gateway's own time."""
    rng = random.Random(unknowns.seed)
    failures = [min(MOST_FAILURES, math.floor(math.log(1 - rng.random()) / math.log(0.3))) for _ in range(n)]
    markers = [f"[[sim:500*{often}]] [[sim:slow=0.05*{often}]]" if often else "" for often in failures]
    world.ask([asked(f"{marker} [[id:good-{at}]]", tenant(at)) for at, marker in enumerate(markers)])
    world.start(2)
    world.drain()
    record = world.record()
    measures = {"lost": basics(record)["lost"], "times shut": float(times_shut(world))}
    return Played(record, measures, [(0.0, PER_SECOND)], basics(record))


def overloaded_calls(world: World, _: Unknowns, n: int) -> Played:
    """30 % of all calls are answered 503, whatever the load: retries wait for their share."""
    world.ask(good(n, max_attempts=5))
    world.start(2)
    world.drain()
    record = world.record()
    firsts = [call.at_s for call in {call.tag: call for call in reversed(record.calls)}.values()]
    busy = [call for call in record.calls if call.at_s <= max(firsts)]
    measures = {
        "others not done": 1 - len(completed(record)) / n,
        "retries beside first calls": 1 - len(firsts) / len(busy),
    }
    return Played(record, measures, [(0.0, PER_SECOND)], basics(record) | {"calls": float(len(record.calls))})


def finish(world: World) -> None:
    """Waits for the last answer: a request may wait alone for longer than a drain has patience."""
    world.until(lambda: world.answered >= world.enqueued, LONGEST_S)


def completed(record: Record) -> list[Mapping[str, Any]]:
    return [one for one in record.results if one["outcome"] == "completed"]


def times_shut(world: World, *, until: float = math.inf) -> int:
    """Gates that a worker said to be shut, until that Unix time: later the culprits may be all that there is."""
    lines = (line for worker in world.workers for line in worker.log.read_text(encoding="utf-8").splitlines())
    said = [json.loads(line) for line in lines if SHUT in line]
    return sum(datetime.fromisoformat(one["timestamp"]).timestamp() <= until for one in said)


def _is_good(call: ReceivedCall) -> bool:
    return (call.tag or "").startswith("good")


def last_s(calls: Sequence[ReceivedCall], tag: str) -> float:
    """From the first call of all to the last one of these."""
    times = [call.at_s for call in calls if (call.tag or "").startswith(tag)]
    return max(times) - calls[0].at_s if times else NOT_SEEN


def _most_calls(calls: Sequence[ReceivedCall]) -> int:
    counts = Counter(call.tag for call in calls if (call.tag or "").startswith("bad"))
    return max(counts.values(), default=0)


def _code(result: Mapping[str, Any]) -> str:
    return result["error"]["code"] if result["error"] else result["outcome"]


def _prompt(envelope: Envelope) -> str:
    return envelope["body"]["input"][0]["content"]
