"""Keeps leases alive from a thread of its own, so that a busy event loop does not cost the fleet a delivery.

A loop that is not merely busy but stuck must not hold its requests for ever: when it has not shown a heartbeat
for a whole lease, renewal stops and another worker takes over.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import redis
from redis.exceptions import RedisError

from worker.ledger import renew


@dataclass(slots=True)
class LeaseKeeper:
    """Renews what `held` lists every third of a lease, in one call."""

    client: redis.Redis
    held: Callable[[], list[tuple[str, str]]]
    lease_ms: int
    upstream: str = "default"
    on_lost: Callable[[set[str]], None] = lambda _: None
    _heartbeat: float = field(default_factory=time.monotonic)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def beat(self) -> None:
        """The loop is alive."""
        self._heartbeat = time.monotonic()

    @property
    def silence_s(self) -> float:
        """How long the loop has shown no heartbeat."""
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
        while not self._stop.wait(self.lease_ms / 3000):
            held = self.held() if self.silence_s * 1000 < self.lease_ms else []
            if not held:
                continue
            try:
                lost = renew(self.client, held, upstream=self.upstream, lease_ms=self.lease_ms)
            except (RedisError, OSError):
                continue  # the ledger's own calls report that Redis is away; the next round may reach it
            if lost:
                self.on_lost(lost)
