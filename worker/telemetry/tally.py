"""Counts what this process did, for the history that the fleet keeps in Redis (`worker.operations.history`).

A count has a name of three words, `what whose which`:

    answers <lane> completed | incomplete | failed      requests answered
    failed <lane> <error code>                          of those, the failed and the incomplete
    throttled <lane> 429                                calls that the gateway refused for their rate
    calls <route> ok | <error code>                     calls of the gateway
    total <lane> <bucket>                               time from enqueueing to the answer
    queued <lane> <bucket>                              time from enqueueing to the first claim
    called <route> <bucket>                             time of one call

Lanes, routes and codes are named by settings and by the contract; a bucket is a time on a logarithmic scale. So the
number of names is bounded. Tenants are as many as callers choose: of those, the busiest are kept.
"""

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Final, NamedTuple

GROWTH: Final = 1.2
"""From one bucket to the next: a percentile is at most a tenth too large or too small."""
MOST_COUNTS: Final = 2_000
"""Names in one report."""
MOST_TENANTS: Final = 100
"""Tenants in one report."""
_TENANTS_HELD: Final = 2_000
_STEP: Final = math.log(GROWTH)


def bucket(ms: float) -> int:
    """The bucket of a time; everything up to one millisecond is in the first, 0."""
    return round(math.log(ms) / _STEP) if ms > 1 else 0


def middle_ms(number: int) -> float:
    """The time that a bucket stands for."""
    return GROWTH**number


class Taken(NamedTuple):
    """The events since the last report."""

    counts: dict[str, int]
    tenants: dict[str, int]
    """Answers by tenant."""


@dataclass(slots=True)
class Tally:
    """One per process, on its event loop; an answer costs a few microseconds."""

    _counts: Counter[str] = field(default_factory=Counter[str])
    _tenants: Counter[str] = field(default_factory=Counter[str])

    def answered(self, lane: str, outcome: str, code: str, tenant: str, total_ms: int | None) -> None:
        """Counts a published answer; `code` is empty where nothing is wrong with it."""
        self._counts[f"answers {lane} {outcome}"] += 1
        if code:
            self._counts[f"failed {lane} {code}"] += 1
        if total_ms is not None:
            self._counts[f"total {lane} {bucket(total_ms)}"] += 1
        if tenant in self._tenants or len(self._tenants) < _TENANTS_HELD:
            self._tenants[tenant] += 1

    def claimed(self, lane: str, queue_ms: int) -> None:
        """Counts the first claim of a request."""
        self._counts[f"queued {lane} {bucket(queue_ms)}"] += 1

    def called(self, lane: str, route: str, code: str, ms: int, *, throttled: bool) -> None:
        """Counts a call of the gateway; `code` is empty where it succeeded."""
        self._counts[f"calls {route} {code or 'ok'}"] += 1
        self._counts[f"called {route} {bucket(ms)}"] += 1
        if throttled:
            self._counts[f"throttled {lane} 429"] += 1

    def take(self) -> Taken:
        """Returns the counts since the last call and forgets them; those above one report's size wait for the next."""
        counts, self._counts = self._counts, Counter[str]()
        if len(counts) > MOST_COUNTS:
            rest = list(counts)[MOST_COUNTS:]
            self._counts.update({name: counts.pop(name) for name in rest})
        tenants, self._tenants = self._tenants, Counter[str]()
        return Taken(dict(counts), dict(tenants.most_common(MOST_TENANTS)))
