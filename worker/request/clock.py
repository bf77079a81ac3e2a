"""Redis server time between two looks at Redis."""

import time
from dataclasses import dataclass, field
from typing import Final

LONGEST_REPLY_MS: Final = 1000
"""A larger step between two readings is a jump of the server's clock."""


@dataclass(frozen=True, slots=True)
class ServerClock:
    """Goes on from one reading of server time by the monotonic clock, so that a jump of the wall clock is not felt."""

    read_ms: int
    _read_s: float = field(default_factory=time.monotonic)

    @classmethod
    def local(cls) -> "ServerClock":
        """The clock of this machine, until the first reply of Redis."""
        return cls(round(time.time() * 1000))

    def corrected(self, read_ms: int) -> "ServerClock":
        """Goes on from a newer reading if that is ahead: the older one was late by the time that its reply took."""
        return ServerClock(read_ms) if 0 < read_ms - self.now_ms <= LONGEST_REPLY_MS else self

    @property
    def now_ms(self) -> int:
        return self.read_ms + round((time.monotonic() - self._read_s) * 1000)
