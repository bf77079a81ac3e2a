"""The reads of a client: their pace, and Redis' replies as values."""

from collections.abc import Iterator
from typing import Any, Final, cast

from redis import ResponseError

_FIRST_LOOK_S: Final = 0.02
_LAST_LOOK_S: Final = 0.25
"""One HMGET each."""


def paces() -> Iterator[float]:
    """Seconds between looks where nobody tells of changes: few at first, then more."""
    pause_s = _FIRST_LOOK_S
    while True:
        yield pause_s
        pause_s = min(pause_s * 1.5, _LAST_LOOK_S)


def make_group(redis: Any, stream: str, group: str) -> None:
    """Makes a consumer group that reads a stream from its start; one that exists stays as it is."""
    try:
        redis.xgroup_create(stream, group, id="0", mkstream=True)
    except ResponseError as error:
        if not str(error).startswith("BUSYGROUP"):
            raise


def entries_of(reply: Any) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """Of the one stream that was asked for; redis-py answers a list in RESP2 and a mapping in RESP3."""
    if not reply:
        return []
    if isinstance(reply, dict):
        return next(iter(cast("dict[Any, Any]", reply).values()))[0]
    return reply[0][1]
