"""The choice of those who wait that are asked for next. Pure.

Once one request of a model has to wait, all behind it wait as well. To ask for each of them again and again would be
most of what an admission costs, so a little more is asked for than is likely to be granted. Now and then all are asked
for, which finds those whose time has become too short.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from worker.admission.grants import Ask, Grant

BULK: Final = 64
"""Answers asked for at once."""

FEWEST: Final = 4
ALL_S: Final = 1.0
"""Between two questions for all."""


_BUDGET: Final = {"throttled", "concurrency", "share", "requests", "tokens"}
"""Reasons to wait that end by themselves."""


@dataclass(slots=True)
class Asking:
    """The questions of one room; `now` is in seconds."""

    most: int = BULK
    """Requests of each model."""
    _all_at: float = 0.0

    def chosen(self, waiting: Iterable[Ask], places: int, now: float) -> list[int]:
        """The places in line of those to ask for."""
        most = BULK if now >= self._all_at else self.most
        if most == BULK:
            self._all_at = now + ALL_S
        asked: Counter[str] = Counter()
        found: list[int] = []
        for number, ask in enumerate(waiting):
            if len(found) == min(BULK, places):
                break
            if asked[ask.model] < most:
                asked[ask.model] += 1
                found.append(number)
        return found

    def learn(self, grant: Grant) -> None:
        """Takes the answers. Where somebody left the line, or waits for more than budget, all are asked for next."""
        steady = grant.reason in _BUDGET and all(answer.word in {"go", "wait"} for answer in grant.answers)
        self.most = min(BULK, max(FEWEST, 2 * grant.granted)) if steady else BULK
