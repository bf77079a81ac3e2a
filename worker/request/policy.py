"""What this worker grants where the caller does not say, and what is answered without a call. Pure."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from api_contracts import ErrorCode, MappedError, Violation
from api_contracts.queues import result_stream
from worker.queue.claims import Claim, Delivery, Lease, Standing
from worker.queue.messages import Message

LONGEST_DEADLINE: Final = timedelta(days=7)

SUSPECT_CRASHES: Final = 2
"""From this many deliveries that died in a call on, a request runs as the only suspect of its process."""

POISON_CRASHES: Final = 3
"""At this many it is dead: it had the process to itself among suspects and took it down again."""


@dataclass(frozen=True, slots=True)
class Obstacle:
    """An answer that needs no call; `dead` is the reason for a dead letter beside it."""

    error: MappedError
    dead: str = ""


def _error(
    code: ErrorCode, message: str, *, retryable: bool = False, violations: tuple[Violation, ...] = ()
) -> MappedError:
    return MappedError(
        code=code,
        message=message,
        retryable=retryable,
        http_status=None,
        upstream=None,
        violations=list(violations),
    )


CONFLICT: Final = _error(
    ErrorCode.DUPLICATE_CONFLICT, "this request_id belongs to a request with another body; choose another id"
)
GONE: Final = _error(
    ErrorCode.DUPLICATE_CONFLICT,
    "this request_id was answered before and its result is no longer kept; choose another id to run it again",
)
CANCELLED: Final = _error(ErrorCode.CANCELLED, "the request was cancelled")
EXPIRED: Final = _error(ErrorCode.DEADLINE_EXCEEDED, "the deadline passed before the request could run")
THROTTLED: Final = _error(
    ErrorCode.RATE_LIMITED, "the deadline passed while waiting for the rate budget", retryable=True
)
OVERSIZED: Final = _error(ErrorCode.REQUEST_TOO_LARGE, "the request needs more tokens than a whole minute's budget")
POISON: Final = _error(
    ErrorCode.INTERNAL_ERROR,
    "workers died while calling for this request; it is kept as a dead letter",
    retryable=True,
)
BUG: Final = _error(ErrorCode.INTERNAL_ERROR, "the worker failed on this request", retryable=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    max_body: int
    max_attempts: int
    timeout: timedelta
    default_deadline: Mapping[str, timedelta]
    result_ttl: timedelta
    probe_interval: timedelta
    patience: Mapping[str, timedelta | None] = field(default_factory=dict[str, timedelta | None])

    def claim(self, delivery: Delivery, message: Message) -> Claim:
        """What the ledger must know of this message; an eta counts as the time of enqueueing for the deadline."""
        request = message.request
        given = [moment for moment in (request and request.deadline, message.expires) if moment]
        start = (request and request.enqueued_at) or message.eta
        lane_default = self.default_deadline.get(delivery.lane) or self.default_deadline["*"]
        deadline = min(given) if given else (max(start, message.eta) + lane_default if start and message.eta else None)
        return Claim(
            tenant=message.tenant,
            request_id=message.request_id,
            task_id=message.task_id,
            fingerprint=message.fingerprint,
            enqueued_at_ms=_ms(request.enqueued_at) if request and request.enqueued_at else None,
            deadline_ms=_ms(deadline) if deadline else None,
            default_deadline_ms=round(lane_default.total_seconds() * 1000),
            longest_deadline_ms=round(LONGEST_DEADLINE.total_seconds() * 1000),
            stream=result_stream(message.reply_to),
        )

    def obstacle(self, lease: Lease, message: Message) -> Obstacle | None:
        """The reason to answer at once, if there is one."""
        violations = message.violations or _too_far(lease, message)
        if lease.crashes >= POISON_CRASHES:
            return Obstacle(POISON, dead="poison")
        if lease.standing is Standing.CANCELLED:
            return Obstacle(CANCELLED)
        if violations:
            code = ErrorCode.REQUEST_TOO_LARGE if message.too_large else ErrorCode.INVALID_REQUEST
            error = _error(code, _sentence(violations[0]), violations=violations)
            return Obstacle(error, dead=message.dead)
        return Obstacle(EXPIRED) if lease.standing is Standing.EXPIRED else None

    def delay_ms(self, lease: Lease, message: Message) -> int:
        """How long Celery's eta or countdown still asks to wait; not past the deadline, which is answered in time."""
        return max(0, min(_ms(message.eta), lease.deadline_ms) - lease.now_ms) if message.eta else 0

    def timeout_s(self, message: Message) -> float:
        own = message.request.timeout if message.request else None
        return own or self.timeout.total_seconds()

    def attempts(self, message: Message) -> int:
        own = message.request.max_attempts if message.request else None
        return own or self.max_attempts

    def patience_s(self, lease: Lease, now_ms: int) -> float:
        """How much longer a request may wait on an upstream that is out of order; its deadline is another matter."""
        patience = self.patience.get(lease.delivery.lane, self.patience.get("*"))
        return math.inf if patience is None else patience.total_seconds() - (now_ms - lease.enqueued_at_ms) / 1000


def _sentence(violation: Violation) -> str:
    """The contract's messages name their field; those about the Celery message around it do not."""
    named = violation.message.startswith(violation.field)
    return violation.message if named else f"{violation.field} {violation.message}"


def _too_far(lease: Lease, message: Message) -> tuple[Violation, ...]:
    deadline = message.request.deadline if message.request else None
    if deadline is None or _ms(deadline) <= lease.now_ms + LONGEST_DEADLINE.total_seconds() * 1000:
        return ()
    return (Violation(field="deadline", message="must be at most 7 days away", type="deadline"),)


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)
