"""The lanes that the keeper keeps: when to look at each, when to promote in it, and where something may be in flight.

No effects and no waiting: times are seconds of this process' clock.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from math import inf
from typing import Final, NamedTuple

from worker.storage import keys
from worker.storage.keys import LISTS

GAP_S: Final = 0.008
"""Between two looks at a lane; changes in between share the next one."""

UNHEARD_S: Final = 1.0
"""The longest pause between looks at a lane whose last ring nobody took: all who serve it are awake."""


SWEEP_EVERY: Final = 4
"""One lane is looked at in any case each time so many calls have said which lanes are kept."""


class Look(NamedTuple):
    """One lane: messages that wait, when the first parked one is due (ms, -1 = none), and 1 where the look rang."""

    waiting: int
    due_ms: float
    rung: int


@dataclass(slots=True)
class _Watch:
    look_at: float = 0.0
    promote_at: float = inf
    looked: float = -inf
    gap_s: float = GAP_S
    waiting: int = 0

    def seen(self, look: Look, now_ms: int, now: float) -> None:
        unheard = look.waiting > 0 and not look.rung
        self.gap_s = min(UNHEARD_S, 2 * self.gap_s) if unheard else GAP_S
        self.looked, self.look_at = now, now + self.gap_s if look.waiting else inf
        self.promote_at = now + max(0.0, look.due_ms - now_ms) / 1000 if look.due_ms >= 0 else inf
        self.waiting = look.waiting


@dataclass(slots=True)
class KeptLanes:
    """All lanes of the fleet in the process that is its keeper, and none in the others."""

    moved: set[str] = field(default_factory=set[str])
    """Those in which something may be in flight."""
    _watches: dict[str, _Watch] = field(default_factory=dict[str, _Watch])
    _of_key: dict[str, str] = field(default_factory=dict[str, str])
    _of_list: dict[str, str] = field(default_factory=dict[str, str])
    _turns: Iterator[int] = field(default_factory=count)

    @property
    def lanes(self) -> list[str]:
        return list(self._watches)

    @property
    def occupied(self) -> list[str]:
        """Those in which messages waited at the last look."""
        return [lane for lane, watch in self._watches.items() if watch.waiting]

    @property
    def quiet_s(self) -> float:
        """Seconds until there is something to do."""
        at = min((min(watch.look_at, watch.promote_at) for watch in self._watches.values()), default=inf)
        return max(0.0, at - time.monotonic())

    def hold(self, lanes: Iterable[str]) -> None:
        """Keeps these lanes from now on, and looks at one of them in any case, should there have been no news of it."""
        held = {lane: self._watches.get(lane) or _Watch() for lane in lanes}
        self.moved = (self.moved & held.keys()) | (held.keys() - self._watches.keys())
        self._watches = held
        self._of_list = {keys.lane(lane)[name]: lane for lane in held for name in LISTS}
        self._of_key = self._of_list | {keys.lane(lane)["delayed"]: lane for lane in held}
        if held and (turn := next(self._turns)) % SWEEP_EVERY == 0:
            held[self.lanes[turn // SWEEP_EVERY % len(held)]].look_at = 0.0

    def changed(self, names: Sequence[str] | None) -> set[str]:
        """These keys did; None stands for all keys. Returns the lanes in which messages may have come."""
        found = self._watches.keys() if names is None else {self._of_key.get(name, "") for name in names}
        for lane in found & self._watches.keys():
            watch = self._watches[lane]
            watch.look_at = min(watch.look_at, watch.looked + watch.gap_s)
            self.moved.add(lane)
        return {self._of_list[name] for name in names or () if name in self._of_list}

    def postpone(self, lanes: Iterable[str]) -> None:
        """This process takes what came in these lanes: a look is worth its cost a little later."""
        for lane in lanes:
            self._watches[lane].look_at = time.monotonic() + GAP_S

    def unsure(self) -> None:
        """Changes may have been missed."""
        for watch in self._watches.values():
            watch.look_at = 0.0
        self.moved.update(self._watches)

    def to_look_at(self) -> list[str]:
        now = time.monotonic()
        return [lane for lane, watch in self._watches.items() if watch.look_at <= now]

    def saw(self, lanes: Sequence[str], now_ms: int, looks: Sequence[Look]) -> None:
        """Takes the findings in these lanes, at this server time."""
        now = time.monotonic()
        for lane, look in zip(lanes, looks, strict=True):
            if lane in self._watches:
                self._watches[lane].seen(look, now_ms, now)

    def to_promote(self) -> list[str]:
        """Lanes in which a parked message is due; each is named once, and after a look again."""
        now = time.monotonic()
        due = [lane for lane, watch in self._watches.items() if watch.promote_at <= now]
        for lane in due:
            self._watches[lane].promote_at = inf
        return due
