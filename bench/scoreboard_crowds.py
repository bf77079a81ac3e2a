"""The scenarios in which there is more to do than the gateway can: a crowd, a collapse, a stranger on the key."""

import math
import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

import httpx

from bench.scoreboard_draws import Unknowns, bodies, body
from bench.scoreboard_evidence import completed, good
from bench.scoreboard_measures import Played, basics, is_refused, passed
from bench.scoreboard_world import World
from worker.devtools.simulator import ReceivedCall, key_alias

CROWD_PER_MINUTE: Final = 120
CROWD_CALL_S: Final = 3.0
CROWD_DEADLINE_S: Final = 15.0
MINUTE_S: Final = 60.0
COLLAPSE_ABOVE: Final = 40
COLLAPSE_CALL_S: Final = 2.0
COLLAPSE_SIGMA: Final = 0.2
COLLAPSE_FROM_S, COLLAPSE_TO_S = 60.0, 240.0
SHARED_PER_MINUTE: Final = 600
SHARED_S, SHARED_FROM_S = 420.0, 60.0
STRANGER_KEY: Final = "sk-stranger"
MOST_OF_IT: Final = 0.8


def twice_too_much(world: World, _: Unknowns, n: int) -> Played:
    """Requests come twice as fast as they may be called, each with a deadline."""
    world.start(2)
    began, per_s = time.monotonic(), 2 * CROWD_PER_MINUTE / 60
    for number, envelope in enumerate(good(n)):
        time.sleep(max(0.0, began + number / per_s - time.monotonic()))
        ends = datetime.now(UTC) + timedelta(seconds=CROWD_DEADLINE_S)
        world.ask([{**envelope, "deadline": ends.isoformat()}])
    world.drain()
    record = world.record()
    done = {one["request_id"] for one in completed(record)}
    # The gateway's calls by the minute in which they came, of those whose request completed.
    good_tags = {f"good-{one[1:]}" for one in done}
    useful = [call for call in passed(record.calls) if call.tag in good_tags]
    minutes = Counter(math.floor((call.at_s - record.calls[0].at_s) / MINUTE_S) for call in useful)
    whole = round(n / per_s / MINUTE_S)
    worst = min(minutes[minute] for minute in range(whole)) / CROWD_PER_MINUTE
    measures = {
        "worst minute below ideal": 1 - worst,
        "wasted calls": 1 - len({call.tag for call in useful}) / len(record.calls),
    }
    return Played(record, measures, [(0.0, CROWD_PER_MINUTE / 60)], basics(record) | {"done": float(len(done))})


def collapsing(world: World, _: Unknowns, n: int) -> Played:
    """Above so many calls in flight each takes longer, and then they are answered 503."""
    world.start(2)
    world.enqueue(bodies(n))
    world.until(lambda: world.since_first_call_s >= COLLAPSE_TO_S or world.answered >= n)
    record = world.record()
    began = record.calls[0].at_s
    ended = [call.at_s + (call.duration_s or 0.0) - began for call in passed(record.calls)]
    goodput = sum(COLLAPSE_FROM_S <= at < COLLAPSE_TO_S for at in ended) / (COLLAPSE_TO_S - COLLAPSE_FROM_S)
    peak = COLLAPSE_ABOVE / (COLLAPSE_CALL_S * math.exp(COLLAPSE_SIGMA**2 / 2))
    over = [call for call in record.calls if call.status is not None]
    measures = {"below its peak": 1 - goodput / peak, "calls an answer": len(over) / len(ended)}
    notes = basics(record) | {"503s": float(len(over) - len(ended)), "goodput": goodput, "peak": peak}
    return Played(record, measures, [(0.0, peak)], notes)


@dataclass(slots=True)
class Stranger:
    """Another client of the same key; its share of the limit wanders between nothing and MOST_OF_IT."""

    url: str
    rng: random.Random
    ends: float = field(default_factory=lambda: time.monotonic() + SHARED_S)
    share: float = 0.0

    def start(self) -> None:
        threading.Thread(target=self._wander, daemon=True).start()

    def _wander(self) -> None:
        target, until, at = 0.0, 0.0, time.monotonic()
        while (now := time.monotonic()) < self.ends:
            if now >= until:
                target, until = self.rng.uniform(0, MOST_OF_IT), now + self.rng.uniform(60, 180)
            self.share += (target - self.share) * min(1.0, (now - at) / max(0.001, until - now))
            at, per_s = now, self.share * SHARED_PER_MINUTE / 60
            if per_s < 0.5:
                time.sleep(0.5)
                continue
            threading.Thread(target=self._call, daemon=True).start()
            time.sleep(self.rng.expovariate(per_s))

    def _call(self) -> None:
        headers = {"Authorization": f"Bearer {STRANGER_KEY}"}
        httpx.post(f"{self.url}/v1/responses", json=body("[[sim:slow=0]] Strange?", 64), headers=headers, timeout=30)


def beside_a_stranger(world: World, unknowns: Unknowns, n: int) -> Played:
    world.start(2)
    world.enqueue(bodies(n), lane="batch")
    world.until(lambda: world.stats.calls)
    Stranger(world.gateway.url, random.Random(unknowns.seed)).start()
    world.until(lambda: world.since_first_call_s >= SHARED_S)
    record = world.record()
    alias = key_alias(STRANGER_KEY)
    began = record.calls[0].at_s
    judged = [call for call in record.calls if SHARED_FROM_S <= call.at_s - began < SHARED_S]
    ours = [call for call in judged if call.key != alias]
    theirs = [call for call in passed(judged) if call.key == alias]
    left = SHARED_PER_MINUTE / 60 * (SHARED_S - SHARED_FROM_S) - len(theirs)
    measures = {
        "lost": float(len(record.results) - len(completed(record))),
        "429s": sum(map(is_refused, ours)) / len(ours),
        "of the rest unused": 1 - len(_admitted(ours)) / left,
    }
    return Played(record, measures, [(0.0, SHARED_PER_MINUTE / 60)], {"stranger": float(len(theirs)), "left": left})


def _admitted(calls: Sequence[ReceivedCall]) -> list[ReceivedCall]:
    return [call for call in calls if call.status in {200, None}]
