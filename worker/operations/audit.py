"""The record of what operators do: a stream that is only appended to, of the last ten thousand acts.

An act is recorded before it is carried out, so nothing is done that is not recorded. What fails afterwards stands in
the record as well.
"""

import getpass
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from redis.exceptions import RedisError

from worker.storage import keys

MOST: Final = 10_000
LONGEST: Final = 500
"""Characters of one fact."""
PAGE: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """The author of an act; only the user of Redis is verified by somebody."""

    name: str
    host: str
    redis_user: str = ""

    def __str__(self) -> str:
        return f"{self.name} at {self.host}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """One entry of the record; `at_ms` is server time."""

    at_ms: int
    entry_id: str
    fleet: str
    who: str
    host: str
    redis_user: str
    what: str
    why: str


@dataclass(frozen=True, slots=True)
class Audit:
    """Writes and reads the record with a blocking client; every method raises redis.RedisError."""

    redis: Any
    fleet: str
    operator: Operator = field(default_factory=lambda: Operator(name=user_name(), host=socket.gethostname()))

    def record(self, what: str, why: str = "") -> None:
        """Appends one act; `what` is the command with its effect, such as `limits --rpm 600`. Never a prompt."""
        facts = {
            "fleet": self.fleet,
            "who": self.operator.name,
            "host": self.operator.host,
            "redis_user": self._redis_user(),
            "what": what,
            "why": why,
        }
        cut = {name: fact[:LONGEST] for name, fact in facts.items()}
        self.redis.xadd(keys.FLEET["audit"], cut, maxlen=MOST, approximate=True)

    def read(self) -> Iterator[Act]:
        """The newest first, of every fleet on this Redis."""
        newest = "+"
        while entries := self.redis.xrevrange(keys.FLEET["audit"], max=newest, count=PAGE):
            yield from (_act(entry_id.decode(), facts) for entry_id, facts in entries)
            newest = f"({entries[-1][0].decode()}"

    def _redis_user(self) -> str:
        with suppress(RedisError):  # a user who may not ask is still let in
            return _text(self.redis.execute_command("ACL WHOAMI"))
        return ""


def user_name() -> str:
    """Of the person at this machine, as far as it knows: `sudo` tells who they were before."""
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (OSError, KeyError):  # a container's user has a number and no name
        return f"uid {os.getuid()}"


def _act(entry_id: str, facts: Mapping[bytes, bytes]) -> Act:
    found = {
        name: _text(facts.get(name.encode(), b"")) for name in ("fleet", "who", "host", "redis_user", "what", "why")
    }
    return Act(at_ms=int(entry_id.partition("-")[0]), entry_id=entry_id, **found)


def _text(raw: Any) -> str:
    return raw.decode(errors="replace") if isinstance(raw, bytes) else str(raw)
