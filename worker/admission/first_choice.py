"""The one route that a few requests ask before all routes are looked at.

A look at one route costs Redis a fraction of a look at all. While every route has room, shares by limit are shares by
headroom: so one of the lowest order is drawn by its limit, and asked alone. If it does not let all of them start at
once, all routes are asked, under the same tokens: whoever was granted a call by the first keeps it.
"""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from worker.admission.commands import Told
from worker.admission.grants import Ask
from worker.admission.route_table import RouteTable, StateSpec, Way, Ways

MOST_ASKED: Final = 4
"""Requests asked for at once; more of them would all go one way, and share the cost of a look at all."""
MOST_MODELS: Final = 64
LOOK_S: Final = 1.0
"""All routes are looked at so often, because gates, pauses and limits change. A choice that had no room is the last for
as long."""


@dataclass(slots=True)
class FirstChoice:
    table: RouteTable
    told: Callable[[StateSpec], Told]
    _until: dict[str, float] = field(default_factory=dict[str, float])
    """By model, until when the last look at all routes counts: they had room for all who asked."""
    _full_until: float = 0.0

    def of(self, asked: Sequence[Ask]) -> Ways | None:
        """The ways by the route that these requests ask first; None: all routes."""
        model = asked[0].model
        if len(asked) > MOST_ASKED or self._until.get(model, 0.0) <= time.monotonic():
            return None
        if any(one.model != model or one.keeps or one.failures or one.tried for one in asked):
            return None
        ways = self.table.first_ways(model)
        rates = [self._rate(way, asked[0].tokens) for way in ways]
        if not rates or not all(rates):
            return None
        return self.table.ways((model,), by=_drawn(ways, rates, asked[0].token).route.name)

    def looked(self, asked: Sequence[Ask], *, room: bool) -> None:
        """All routes were looked at; `room` says whether they had it for all who asked."""
        now = time.monotonic()
        if len(self._until) > MOST_MODELS:
            self._until.clear()
        for model in {one.model for one in asked}:
            self._until[model] = now + LOOK_S if room and now >= self._full_until else 0.0

    def missed(self) -> None:
        """The first choice had no room."""
        self._full_until = time.monotonic() + LOOK_S

    def _rate(self, way: Way, tokens: int) -> float:
        """Calls a minute, as limits name it; 0 where none does, or where the way is shut."""
        told = [self.told(state) for state, _ in way.states]
        if any(each.gate or each.paused for each in told):
            return 0.0
        requests = [each.requests_per_minute for each in told if each.requests_per_minute]
        by_tokens = [each.tokens_per_minute / max(1, tokens) for each in told if each.tokens_per_minute]
        return min([*requests, *by_tokens], default=0.0)


def _drawn(ways: Sequence[Way], rates: Sequence[float], token: str) -> Way:
    """One of these in proportion to its rate, as good as random and the same for the same token."""
    left = int(hashlib.sha1(token.encode(), usedforsecurity=False).hexdigest()[:8], 16) / 2**32 * sum(rates)
    for way, rate in zip(ways, rates, strict=True):
        left -= rate
        if left < 0:
            return way
    return ways[-1]
