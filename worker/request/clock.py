"""Redis server time between two looks at Redis."""

import time
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ServerClock:
    """Goes on from one reading of server time by the monotonic clock, so that a jump of the wall clock is not felt."""

    read_ms: int
    _read_s: float = field(default_factory=time.monotonic)

    @classmethod
    def local(cls) -> "ServerClock":
        """The clock of this machine, until the first reply of Redis."""
        return cls(round(time.time() * 1000))

    @property
    def now_ms(self) -> int:
        return self.read_ms + round((time.monotonic() - self._read_s) * 1000)
