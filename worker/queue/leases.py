"""The leases that a process holds, and those that a pop under way may have given to it."""

from collections.abc import Iterable
from typing import Final

import redis

from worker.queue.commands import RENEW, RETURNS
from worker.storage import keys
from worker.storage.commands import Row
from worker.storage.scripts import call_blocking

LEASE_MS: Final = 15_000
"""The time for which a silent worker keeps its deliveries; three renewals fit in."""

RENEWED_AT_ONCE: Final = 200
"""Redis serves no other client during a call."""


def tokens_of(pop_id: str, lanes: Iterable[str], count: int) -> list[tuple[str, str]]:
    """Lane and token of whatever a pop under this id takes, if it takes `count` messages at most."""
    return [(lane, f"{pop_id}.{lane}.{number}") for lane in lanes for number in range(1, count + 1)]


def renew(client: redis.Redis, held: Iterable[tuple[str, str]], *, upstream: str, lease_ms: int = LEASE_MS) -> set[str]:
    """Extends the leases and permits of `held` (lane, token) pairs; returns the tokens no longer in flight.

    Blocking, because renewal runs on a thread of its own: a busy event loop must not cost leases.
    """
    tokens: dict[str, list[str]] = {}
    for lane, token in held:
        tokens.setdefault(lane, []).append(token)
    missing: set[str] = set()
    for lane, mine in tokens.items():
        names = keys.lane(lane) | keys.upstream(upstream)
        for start in range(0, len(mine), RENEWED_AT_ONCE):
            rows = [Row({}, {"token": token}) for token in mine[start : start + RENEWED_AT_ONCE]]
            missing |= call_blocking(client, RETURNS, RENEW, names, rows, lease_ms=lease_ms)
    return missing
