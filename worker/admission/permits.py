"""The permits of calls in flight, where several states count them."""

from collections.abc import Sequence
from typing import Final

import redis

from worker.admission.commands import ADMISSION, RENEW_PERMITS
from worker.admission.route_table import StateSpec
from worker.storage.commands import Row
from worker.storage.scripts import call_blocking

RENEWED_AT_ONCE: Final = 200
"""Redis serves no other client during a call."""


def renew(client: redis.Redis, states: Sequence[StateSpec], tokens: Sequence[str], *, lease_ms: int) -> None:
    """Extends the permits that these deliveries hold; brings none back. Blocking, for a thread. Raises RedisError."""
    groups = [Row(state.row().keys, {}) for state in states]
    for start in range(0, len(tokens), RENEWED_AT_ONCE):
        rows = [Row({}, {"token": token}) for token in tokens[start : start + RENEWED_AT_ONCE]]
        call_blocking(client, ADMISSION, RENEW_PERMITS, {}, rows, groups, lease_ms=lease_ms)
