"""News of a request, told by Redis instead of asked for: a caller that waits learns of a result in about a millisecond.

The guarantee of the workers' side: every step of a request is a write to its hash (`request_key(tenant, id)`), and the
result is written there with its final state, in one script. So it is enough to be told that this key changed. Redis
tells it to whoever asks (redis.io/docs/latest/develop/reference/client-side-caching):

1. On a connection that speaks RESP3, once: `CLIENT TRACKING ON`.
2. On the same connection: `HMGET responses:request:<tenant>:<id> state token fingerprint result`. Redis remembers that
   this connection has read the key, for one change. A key that does not exist yet is remembered as well. Once the
   result is dropped, the field `mark` has the first digits of the fingerprint instead.
3. On any change of the key the connection gets the push `["invalidate", [key, ...]]`; `["invalidate", None]` means
   every key, after a flush. Then read again, as in 2: about four times in a request's life.

One connection can wait for any number of keys. News are lost only with the connection, so every key is read again after
each connect, and a connection that is silent is asked whether it lives. A server or a proxy that refuses the first step
is read at a pace (`paces`).
"""

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from api_contracts.client.effects import Command, Notice, Replies

TRACKING: Final[Command] = ("CLIENT", "TRACKING", "ON")
PING: Final[Command] = ("PING",)

REFUSED: Final = "Redis does not push changes (%s): callers that wait look for themselves, a quarter of a second late"

CHECK_S: Final = 10.0
"""A connection that was silent this long is asked whether it still lives."""

REPLY_S: Final = 5.0
"""A reply this late means a dead peer."""


@dataclass(frozen=True, slots=True)
class Pushed:
    """Keys that changed; None for all of them."""

    keys: Iterable[bytes | str] | None

    @classmethod
    def of(cls, push: Sequence[Any]) -> "Pushed":
        """Redis says `invalidate` and the keys."""
        return cls(push[1])


@dataclass(eq=False, slots=True)
class Looking:
    """Commands that were sent; `done` is called when the last reply is there, or the connection is lost."""

    left: int
    replies: Replies = field(default_factory=list[Any])
    lost: Exception | None = None
    done: Callable[[], None] = lambda: None

    @property
    def is_over(self) -> bool:
        return self.left == 0 or self.lost is not None

    def outcome(self) -> Replies:
        if self.lost is not None:
            raise self.lost
        return checked(self.replies, errors_as_replies=False)


@dataclass(slots=True)
class Watched:
    """The looks of one connection that await replies, and the notices of each key."""

    _looks: deque[Looking] = field(default_factory=deque[Looking])
    _notices: dict[str, set[Notice]] = field(default_factory=dict[str, set[Notice]])

    def asked(self, commands: Sequence[Command], notice: Notice | None = None) -> Looking:
        """To be called as the commands are sent, in the same order."""
        looking = Looking(len(commands))
        self._looks.append(looking)
        if notice is not None:
            for _, key, *_ in commands:
                self._notices.setdefault(key, set()).add(notice)
                notice.keys.add(key)
        return looking

    def heard(self, said: Any) -> None:
        """Takes a push, or the next reply. None is a push that redis-py kept for itself."""
        if isinstance(said, Pushed):
            self.changed(said.keys)
        elif said is not None:  # no look is answered with None
            self._replied(said)

    def _replied(self, reply: Any) -> None:
        looking = self._looks[0]
        looking.replies.append(reply)
        looking.left -= 1
        if looking.is_over:
            self._looks.popleft()
            looking.done()

    def changed(self, keys: Iterable[bytes | str] | None) -> None:
        """None means every key: Redis flushed them all."""
        for key in list(self._notices) if keys is None else keys:
            name = key if isinstance(key, str) else key.decode("utf-8", "replace")
            for notice in self._notices.get(name, ()):
                notice.tell(name)

    def lost(self, error: Exception) -> None:
        """Nobody hears of anything any more: all look again, on another connection."""
        looks, self._looks = self._looks, deque[Looking]()
        for looking in looks:
            looking.lost = error
            looking.done()
        self.changed(None)
        self._notices.clear()

    def forget(self, notice: Notice, keys: Iterable[str] | None = None) -> None:
        """The notice wants to hear no more, of these keys or at all."""
        for key in list(notice.keys if keys is None else keys):
            notice.keys.discard(key)
            if waiting := self._notices.get(key):
                waiting.discard(notice)
                if not waiting:
                    del self._notices[key]


def own_options(pool: Any) -> dict[str, Any]:
    """Those of the caller's connections, but for what a connection that hears pushes must be."""
    own = {"protocol": 3, "socket_timeout": None, "decode_responses": False, "health_check_interval": 0}
    options: dict[str, Any] = {**pool.connection_kwargs, **own}
    if "maint_notifications_config" in options:  # redis-py would ask the server for those of its maker
        options["maint_notifications_config"] = None
    return options


def wire(command: Command) -> Command:
    """The command for redis-py, which answers as Redis did where the name is bytes: its callbacks are for names."""
    name, *rest = command
    return (name.encode(), *rest)


def checked(replies: Replies, *, errors_as_replies: bool) -> Replies:
    """The replies; raises the first error. redis-py itself would quote the command, and with it a prompt."""
    if not errors_as_replies:
        for refused in (reply for reply in replies if isinstance(reply, Exception)):
            raise refused
    return replies


def paces() -> Iterator[float]:
    """Seconds between looks where Redis pushes nothing: few at first, then more."""
    return itertools.chain((0.02 * 1.5**n for n in range(6)), itertools.repeat(0.25))
