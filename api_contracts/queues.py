"""Every name that producers, workers and consumers must agree on.

Lanes are plain Celery queues named `responses.<lane>`; results are Redis Streams. All keys that are not
Celery's own start with `responses:`.
"""

from typing import Final

TASK_NAME: Final = "responses.create"
"""The one Celery task. Its only argument is the envelope."""

DEFAULT_LANES: Final = ("interactive", "batch")
DEFAULT_TENANT: Final = "default"

PRIORITIES: Final = (0, 3, 6, 9)
"""Celery's steps; 0 is the highest, and any number counts as the step at or below it."""

RESULT_STREAM: Final = "responses:results"
DEAD_STREAM: Final = "responses:dead"
"""Dead letters: messages that no answer could be given for, and poison."""

UNREADABLE_STREAM: Final = "responses:unreadable"
"""Entries of result streams that a consumer's client could not read; written by the client, bounded in number."""

STREAMS: Final = "responses:streams"
"""The set of all result streams that were ever written to."""

LANES: Final = "responses:lanes"
"""The sorted set of lanes by the time, in ms, at which a worker last said that it serves them."""

DELAYED: Final = "responses:delayed:"
"""Before a lane's name: the sorted set of its parked deliveries by the time at which they are due."""


CANCEL: Final = "responses:cancel:"
"""Before a tenant and a request id: the key whose presence cancels the request."""


def lane_queue(lane: str) -> str:
    """The Celery queue (a Redis list) that carries a lane."""
    return f"responses.{lane}"


def lane_list(lane: str, priority: int = 0) -> str:
    """The Redis list to LPUSH to: Celery keeps one per step of priority (kombu's Redis transport)."""
    step = max(level for level in PRIORITIES if level <= max(0, priority))
    return f"{lane_queue(lane)}\x06\x16{step}" if step else lane_queue(lane)


def lane_lists(lane: str) -> list[str]:
    """All lists of a lane, in the order of PRIORITIES."""
    return [lane_list(lane, priority) for priority in PRIORITIES]


def result_stream(reply_to: str | None) -> str:
    """The Redis Stream on which a request's result is published."""
    return f"{RESULT_STREAM}:{reply_to}" if reply_to else RESULT_STREAM


def request_key(tenant: str, request_id: str) -> str:
    """The hash with the fields `state` and `result` of one request."""
    return f"responses:request:{_scoped(tenant, request_id)}"


def delta_stream(tenant: str, request_id: str) -> str:
    """The stream of token deltas of one streamed request."""
    return f"responses:deltas:{_scoped(tenant, request_id)}"


def cancel_key(tenant: str, request_id: str) -> str:
    """The key whose presence cancels one request."""
    return f"{CANCEL}{_scoped(tenant, request_id)}"


def _scoped(tenant: str, request_id: str) -> str:
    """Tenant and id as one part of a key. Both may hold a colon, so a colon of the tenant is escaped."""
    return f"{tenant.replace(':', '%3A')}:{request_id}"
