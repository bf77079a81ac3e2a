"""Finds messages that nobody serves: a lane that no worker has, a producer's own priorities or prefix, a typo.

Redis has no index of lanes, so the keys are looked through some at a time; a look ends after a bounded number of them,
and the next one goes on from there.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from api_contracts.queues import lane_lists
from worker.storage import keys

KEYS_A_CALL: Final = 1_000
SERVED_MS: Final = 60_000
"""A lane is served while some worker said so in the last minute; each says so every ten seconds."""

LISTS: Final = "*responses.*"
"""With whatever prefix a producer configured."""
HASHES: Final = (keys.INFLIGHT, keys.PARKED)


@dataclass(slots=True)
class StraySearch:
    """One search after the other over all keys of a Redis."""

    lanes: Collection[str]
    """Served, whatever Redis says."""
    _cursor: int = 0
    _found: dict[str, int] = field(default_factory=dict[str, int])
    _last: dict[str, int] = field(default_factory=dict[str, int])
    complete: bool = False
    """Whether all keys were looked through at least once."""

    def look(self, redis: Any, calls: int) -> Mapping[str, int]:
        """Goes on for so many calls. Returns key -> messages of the last search, or of this one while it is the first.

        Raises redis.RedisError.
        """
        served = {*self.lanes, *_served(redis)}
        for _ in range(calls):
            self._found |= self._page(redis, served)
            if self._cursor == 0:
                self._last, self._found, self.complete = self._found, {}, True
                break
        return dict(self._last if self.complete else self._found)

    def _page(self, redis: Any, served: Collection[str]) -> dict[str, int]:
        known = {name for lane in served for name in lane_lists(lane)}
        with redis.pipeline(transaction=False) as batch:
            # The same part of the keys, whatever they are filtered by.
            batch.scan(self._cursor, match=LISTS, count=KEYS_A_CALL, _type="list")
            for prefix in HASHES:
                batch.scan(self._cursor, match=f"{prefix}*", count=KEYS_A_CALL)
            replies = batch.execute()
        self._cursor = int(replies[0][0])
        lists = [name for name in replies[0][1] if name.decode(errors="replace") not in known]
        hashes = [name for reply in replies[1:] for name in reply[1] if _lane_of(name) not in served]
        with redis.pipeline(transaction=False) as batch:
            for name in lists:
                batch.llen(name)
            for name in hashes:
                batch.hlen(name)
            sizes = batch.execute(raise_on_error=False)
        found = zip([*lists, *hashes], sizes, strict=True)
        return {name.decode(errors="replace"): size for name, size in found if isinstance(size, int) and size}


def _lane_of(name: bytes) -> str:
    return name.decode(errors="replace").split(":", 2)[2]


def _served(redis: Any) -> list[str]:
    """The lanes that some worker served lately."""
    seconds, _ = redis.time()
    lately = redis.zrange(keys.FLEET["lanes"], seconds * 1000 - SERVED_MS, "+inf", byscore=True)
    return [lane.decode(errors="replace") for lane in lately]
