"""Leases that ran out, as seen from beside the fleet: when what a killed worker held was given back to its lane."""

import threading
import time
from dataclasses import dataclass, field
from typing import Any, Final, Self

import redis
from redis.exceptions import RedisError

from worker.queue.leases import LEASE_MS

LANES: Final = ("interactive", "batch")
LEASE_S: Final = LEASE_MS / 1000
LOOK_S: Final = 0.1
_SLACK_S: Final = 0.5


@dataclass(slots=True)
class LeaseWatch:
    """Looks ten times a second, over a connection of its own that no fault of the stage touches."""

    url: str
    given_back: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])
    """For each delivery that went after its lease had run out: when it went, and when the lease had been renewed."""
    _over: threading.Event = field(default_factory=threading.Event)
    _thread: "threading.Thread | None" = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._watch, name="lease-watch")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def recoveries(self, kills: list[float], returns: list[float]) -> list[float]:
        """From each kill until each delivery of its worker was back, since Redis could last be reached."""
        found: list[float] = []
        for gone_at, renewed_at in self.given_back:
            # A worker renews three times in a lease, so it was killed within a third of one after the last time.
            suspects = [kill for kill in kills if -_SLACK_S < kill - renewed_at < LEASE_S / 3 + _SLACK_S]
            if suspects:
                since = max([suspects[0], *(back for back in returns if back < gone_at)])
                found.append(gone_at - since)
        return found

    def _watch(self) -> None:
        client: Any = redis.Redis.from_url(self.url)  # pyright: ignore[reportUnknownMemberType]  # untyped kwargs
        known: dict[bytes, float] = {}
        while not self._over.wait(LOOK_S):
            try:
                leases = {token: at_ms / 1000 for lane in LANES for token, at_ms in _leases(client, lane)}
            except (RedisError, OSError):
                continue  # it is being restarted
            now = time.time()
            expired = [at for token, at in known.items() if token not in leases and at < now]
            self.given_back += [(now, at - LEASE_S) for at in expired]
            known = leases
        client.close()


def _leases(client: Any, lane: str) -> list[tuple[bytes, float]]:
    return client.zrange(f"responses:leases:{lane}", 0, -1, withscores=True)
