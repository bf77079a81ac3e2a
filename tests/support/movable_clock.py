"""A server's clock that the test moves: scripts read the time from a key."""

import time
from dataclasses import dataclass, field, replace
from typing import Any, Final

from worker.storage.scripts import Script

CLOCK: Final = "test:now_ms"

_MOVABLE_CLOCK: Final = f"""
local redis = setmetatable({{ call = function(command, ...)
  local now = command == 'TIME' and redis.call('GET', '{CLOCK}')
  if not now then return redis.call(command, ...) end
  return {{ math.floor(now / 1000), now % 1000 * 1000 }}
end }}, {{ __index = redis }})
"""


def on_movable_clock(script: Script) -> Script:
    """Returns the same script, which reads the server's time from the key `CLOCK`."""

    def shifted(text: str) -> str:
        head, body = text.split("\n", 1)
        return f"{head}\n{_MOVABLE_CLOCK}{body}"

    return replace(script, refusing=shifted(script.refusing), insisting=shifted(script.insisting))


@dataclass
class MovableClock:
    """The time that scripts on this server read, in Unix milliseconds. It stands still until the test moves it."""

    redis: Any
    now_ms: int = field(kw_only=True, default_factory=lambda: round(time.time() * 1000))

    def __post_init__(self) -> None:
        self.set_clock(self.now_ms)

    def set_clock(self, now_ms: int) -> None:
        self.now_ms = now_ms
        self.redis.set(CLOCK, now_ms)

    def advance(self, ms: int) -> None:
        self.set_clock(self.now_ms + ms)
