"""A busy sender waits a little, so that more calls leave together; one that makes few calls does not.

What a run of a script costs Redis hardly grows with the calls that it makes. Where calls of the gateway take seconds,
script calls wait some thousandths of that time for each other, and one Redis carries a fleet twice as large. A lone
request waits for nobody.
"""

from dataclasses import dataclass, field
from typing import Final

SHARE: Final = 0.005
"""Of the time of a short call of the gateway. A request waits for others three times: about a hundredth of its time."""

LONGEST_S: Final = 0.04
"""Measured with 2,400 calls of 8 seconds in flight: half of Redis' time a request. Longer pauses save little more."""

RUN: Final = 16
"""Calls that one run of a script makes: Redis serves nobody else for these one or two milliseconds."""

WINDOW_S: Final = 0.5
"""Longer than the calls of one request follow each other, so that a lone request is not a busy sender."""

RISE: Final = 1 / 128
"""Of the difference to a longer answer: some hundreds of equal answers are believed."""


@dataclass(slots=True)
class Pace:
    """The time of the gateway's shorter answers, those that would feel a pause most.

    Where one answer in ten is short, it is theirs. One in a hundred may wait for up to `LONGEST_S`, three times.
    """

    short_s: float = 0.0

    def answered(self, took_s: float) -> None:
        """Follows a shorter answer at once and longer ones slowly."""
        self.short_s = min(took_s, self.short_s + (took_s - self.short_s) * RISE)

    @property
    def pause_s(self) -> float:
        return min(self.short_s * SHARE, LONGEST_S)


@dataclass(slots=True)
class Gathering:
    """Counts the calls of one sender; `now` is in seconds."""

    pace: Pace = field(default_factory=Pace)
    _since: float = 0.0
    _calls: int = 0
    _before: int = 0
    """Calls in the window before."""

    def sent(self, calls: int, now: float) -> None:
        self._turn(now)
        self._calls += calls

    def pause_s(self, waiting: int, now: float) -> float:
        """Until the next calls leave; 0 lets those come along that are made in this turn of the loop.

        A pause in which no other call is likely to come would be waste.
        """
        self._turn(now)
        pause = self.pace.pause_s
        return pause if waiting < RUN and self._before * pause >= WINDOW_S else 0.0

    def _turn(self, now: float) -> None:
        if now - self._since >= WINDOW_S:
            self._before = self._calls if now - self._since < 2 * WINDOW_S else 0
            self._since, self._calls = now, 0
