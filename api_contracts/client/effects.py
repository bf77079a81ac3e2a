"""The wishes of the client's logic: commands out, replies in, and no input or output of its own.

The logic is generators that yield these effects (`Steps`). A driver performs each effect and sends its outcome back, or
throws the error that it met. There are two drivers, for threads (`blocking.py`) and for an event loop
(`asynchronous.py`), and one logic.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, cast

T = TypeVar("T")

Command = tuple[Any, ...]
Replies = list[Any]


@dataclass(eq=False, slots=True)
class Notice:
    """The keys that one waiter has looked at, and those of them that changed since."""

    changed: bool = False
    keys: set[str] = field(default_factory=set[str])
    news: set[str] = field(default_factory=set[str])
    """Those of the keys that changed since `heard`."""
    wake: Callable[[], None] = lambda: None
    """Set by the driver that waits."""

    def tell(self, *keys: str) -> None:
        self.changed = True
        self.news.update(keys)
        self.wake()

    def heard(self) -> set[str]:
        """The keys that changed; from now on others count."""
        news, self.news, self.changed = self.news, set(), False
        return news


@dataclass(frozen=True, slots=True)
class Ask:
    """Commands to one cell in one round trip. The outcome is their replies."""

    commands: tuple[Command, ...]
    cell: int = 0
    errors_as_replies: bool = False


@dataclass(frozen=True, slots=True)
class Look:
    """Reads of one key each, in one round trip. The notice is told of the next change of each key."""

    notice: Notice
    commands: tuple[Command, ...]
    cell: int = 0


@dataclass(frozen=True, slots=True)
class Wait:
    """Until the notice is told something, or the time is up."""

    notice: Notice
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Emit:
    """Hands a value to whoever iterates. The outcome comes when the next one is wanted."""

    value: Any


class ClosedError(Exception):
    """Thrown at an `Emit` whose iterator was closed, or at any effect whose task was cancelled."""


class LostError(Exception):
    """Redis went away during an effect; `__cause__` is redis-py's error."""


Effect = Ask | Look | Wait | Emit
Steps = Generator[Effect, Any, T]


@dataclass(slots=True)
class Running(Generic[T]):
    """Steps under way: `outcome` or `error` is what the effect before came to."""

    steps: Steps[T]
    outcome: Any = None
    error: Exception | None = None
    value: T = field(default=cast("T", None))
    """The value that the steps returned, once they are over."""

    def advance(self) -> Effect | None:
        """The next effect, or None at the end. Raises what the steps raise."""
        outcome, self.outcome = self.outcome, None
        error, self.error = self.error, None
        try:
            return self.steps.send(outcome) if error is None else self.steps.throw(error)
        except StopIteration as end:
            self.value = end.value
            return None
