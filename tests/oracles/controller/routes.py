"""The choice of a route: the rules of `worker/admission/lua/choice.lua`, said once more."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby


@dataclass(frozen=True, slots=True)
class Way:
    """One route for the model of a request, as a round of admission finds it."""

    name: str
    order: int
    spill_ms: float = 0
    closed: bool = False
    wait_ms: float = 0
    reason: str = ""
    headroom: float = 1  # calls
    rate: float = 1  # calls a second
    luck: float = 0.5


@dataclass(frozen=True, slots=True)
class Wait:
    """Ask again after so long; what is waited for."""

    ms: float
    reason: str


def choose(ways: Sequence[Way], waited_ms: float, draw: float | None) -> Way | Wait:
    """The way to go, or how long to wait. `ways` are sorted by order; without a `draw` the request keeps to a route."""
    soonest = Wait(math.inf, "")
    in_order = False
    for _, group in groupby(ways, key=lambda way: way.order):
        fit = [way for way in group if not way.closed]
        spill = {way.name: way.spill_ms - waited_ms if in_order else 0.0 for way in fit}
        if room := [way for way in fit if way.wait_ms <= 0 and spill[way.name] <= 0]:
            return room[0] if len(room) == 1 else _one_of(room, draw)
        for way in fit:
            ms = max(way.wait_ms, spill[way.name])
            if ms < soonest.ms:
                soonest = Wait(ms, way.reason if way.wait_ms >= spill[way.name] else soonest.reason)
        in_order = in_order or bool(fit)
    if in_order:
        return soonest
    first = min(ways, key=lambda way: way.wait_ms)
    return Wait(first.wait_ms, first.reason)


def _one_of(room: Sequence[Way], draw: float | None) -> Way:
    if draw is None:
        return max(room, key=lambda way: way.rate / -math.log(max(way.luck, 1e-9)))
    left = draw * sum(way.headroom for way in room)
    for way in room:
        left -= way.headroom
        if left < 0:
            return way
    return room[-1]
