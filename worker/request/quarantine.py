"""Suspects that may run side by side in this process, so that a request that kills processes is found by halving."""

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import Final

NO_LIMIT: Final = 1_000_000

QUIET_S: Final = 60.0
"""The longest wait of a group's last suspect for its process to be empty; calls that take longer see it begin."""


@dataclass(slots=True)
class Quarantine:
    """The deliveries in this process, by token, each with the number of suspects that it lets run beside it."""

    _limits: dict[str, int] = field(default_factory=dict[str, int])
    _left: asyncio.Event = field(default_factory=asyncio.Event)

    def enter(self, token: str, limit: int | None) -> bool:
        """Lets a delivery run, unless more suspects than some limit allows would run then.

        `limit` is that of a suspect, itself included; None for all others, which only a suspect of limit 1 keeps out.
        """
        suspects = [other for other in self._limits.values() if other != NO_LIMIT]
        if self.closed or (limit is not None and len(suspects) >= min([*suspects, limit])):
            return False
        self._limits[token] = limit or NO_LIMIT
        return True

    def leave(self, token: str) -> None:
        self._limits.pop(token, None)
        self._left.set()

    @property
    def running(self) -> int:
        """The number of deliveries that run here."""
        return len(self._limits)

    @property
    def closed(self) -> bool:
        """Whether a suspect is to be alone here: the process takes no more work until it has ended."""
        return 1 in self._limits.values()

    async def until_alone(self, within_s: float) -> None:
        """Returns once nothing else runs here, or when the time is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while len(self._limits) > 1:
                    self._left.clear()
                    await self._left.wait()
