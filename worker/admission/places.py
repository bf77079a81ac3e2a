"""The calls that one process may have under way at once, and the requests that it holds ready for the next ones.

A place is free again when its call has ended, and not when the answer is published: the next call starts meanwhile.
"""

import time
from collections import deque
from dataclasses import dataclass, field
from typing import Final

AHEAD_S: Final = 0.1
"""Requests are held ready for the places that become free within this time. More would wait here while another process
has places for them."""

_WINDOW_S: Final = 1.0


@dataclass(slots=True)
class Places:
    """`limit` calls, each counted by its token from its grant to its end."""

    limit: int
    _calls: set[str] = field(default_factory=set[str])
    _asked: int = 0
    """Grants that are asked for at this moment."""
    _ends: deque[float] = field(default_factory=deque[float])
    """Times at which calls ended, of the last second."""

    @property
    def free(self) -> int:
        """The number of calls that may start, less those for which a grant is asked."""
        return max(0, self.limit - len(self._calls) - self._asked)

    @property
    def ahead(self) -> int:
        """The number of requests that will find a place within `AHEAD_S`, at the pace of the last second."""
        oldest = time.monotonic() - _WINDOW_S
        while self._ends and self._ends[0] < oldest:
            self._ends.popleft()
        return min(self.limit, round(len(self._ends) / _WINDOW_S * AHEAD_S))

    def ask(self, number: int) -> None:
        self._asked += number

    def answered(self, number: int) -> None:
        self._asked -= number

    def take(self, token: str) -> None:
        self._calls.add(token)

    def leave(self, token: str) -> bool:
        """Frees the place of a call that is over, or that never began; returns whether it had one."""
        if held := token in self._calls:
            self._calls.remove(token)
            self._ends.append(time.monotonic())
        return held
