"""Keeps leases alive from a thread of its own, so that a busy event loop does not cost the fleet a delivery.

A loop that is not merely busy but stuck must not hold its requests for ever: when it has not shown a heartbeat
for a whole lease, renewal stops and another worker takes over.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import redis
from redis.exceptions import RedisError

from worker.queue.events import QueueEvents
from worker.queue.leases import renew

_ROUNDS_TO_BE_LOST: Final = 2


@dataclass(slots=True)
class LeaseRenewer:
    """Renews what `held` lists every third of a lease and tells `events` once of each that somebody else took over."""

    client: redis.Redis
    held: Callable[[], list[tuple[str, str]]]
    lease_ms: int
    events: QueueEvents
    upstream: str = "default"
    arriving: Callable[[], list[tuple[str, str]]] = list
    """The deliveries that a pop under way may have taken; renewed as well, and not missed."""
    also: Callable[[list[str]], None] | None = None
    """Extends whatever else the tokens of these deliveries hold. May raise RedisError."""
    _missing: dict[str, int] = field(default_factory=dict[str, int])
    """Rounds in which a delivery was held but not in flight."""
    _heartbeat: float = field(default_factory=time.monotonic)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def beat(self) -> None:
        """The loop is alive."""
        self._heartbeat = time.monotonic()

    @property
    def silence_s(self) -> float:
        """The time for which the loop has shown no heartbeat."""
        return time.monotonic() - self._heartbeat

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="lease-keeper", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=1)
        self.client.close()

    def _run(self) -> None:
        round_s = self.lease_ms / 3000
        pause_s = round_s
        while not self._stop.wait(pause_s):
            pause_s = round_s if self._renew() else round_s / 10

    def _renew(self) -> bool:
        """False where Redis could not be reached; the lease leaves no time to wait for the next round then."""
        alive = self.silence_s * 1000 < self.lease_ms
        held, arriving = (self.held(), self.arriving()) if alive else ([], [])
        if not held and not arriving:
            return True
        try:
            missing = renew(self.client, [*held, *arriving], upstream=self.upstream, lease_ms=self.lease_ms)
            if self.also is not None:
                self.also([token for _, token in held])
        except (RedisError, OSError):
            # The ledger's own calls report it. After a failover the address may mean another server.
            self.client.connection_pool.disconnect()
            return False
        # A delivery answered a moment ago is missing as well; one that is still held a round later is lost.
        missing &= {token for _, token in held}
        self._missing = {token: self._missing.get(token, 0) + 1 for token in missing}
        lost = {token for token, rounds in self._missing.items() if rounds == _ROUNDS_TO_BE_LOST}
        if lost:
            self.events.leases_lost(lost)
        return True
