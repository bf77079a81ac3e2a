"""Which failure is told to whom: the policy, as data.

    level     of the Sentry event; None: a line in the log and a counter, because nobody here can do anything about it
    pages     whether its first event should wake somebody; the rest is for daylight, or for the burn rate
    fault     whose it is, for the error budget: what callers got wrong does not count against us
    sees      what the customer sees meanwhile

Never in a fingerprint: message text, request id, tenant, HTTP status. One incident is one issue.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal

from api_contracts import ErrorCode

EventLevel = Literal["fatal", "error", "warning", "info"]
Fault = Literal["none", "caller", "upstream", "budget", "operator", "worker"]


class State(StrEnum):
    """What can be wrong beside a request: conditions that begin and end, and blows that strike once."""

    BREAKER_OPEN = "breaker_open"
    REDIS_LOST = "redis_lost"
    RESULTS_UNPUBLISHABLE = "results_unpublishable"
    RESULTS_HIGH_WATER = "results_high_water"
    LEDGER_REFUSED = "ledger_refused"
    MESSAGE_UNREADABLE = "message_unreadable"
    POISON = "poison"
    BUG = "bug"
    LOOP_STALLED = "loop_stalled"
    CONSUMER_STALLED = "consumer_stalled"
    WORKER_FAILED = "worker_failed"


Kind = ErrorCode | State
"""A failure class or a state; its text is the name everywhere: issue, metric label, runbook entry."""


@dataclass(frozen=True, slots=True)
class AlertPolicy:
    level: EventLevel | None
    component: Literal["upstream", "budget", "redis", "results", "lane", "request", "worker"]
    fault: Fault
    sees: str
    pages: bool = False


_LATER: Final = "a failed result, retryable; nothing is lost"
_NOTHING: Final = "nothing yet: requests wait, and are answered when this ends or their deadline comes"

ALERT_POLICY: Final[Mapping[Kind, AlertPolicy]] = {
    ErrorCode.INVALID_REQUEST: AlertPolicy(None, "request", "caller", "its own mistake, with the field that is wrong"),
    ErrorCode.DUPLICATE_CONFLICT: AlertPolicy(None, "request", "caller", "that the id belongs to another body"),
    ErrorCode.CONTEXT_LENGTH_EXCEEDED: AlertPolicy(None, "request", "caller", "that its input is too long"),
    ErrorCode.REQUEST_TOO_LARGE: AlertPolicy(None, "request", "caller", "that its request is too large"),
    ErrorCode.CONTENT_REJECTED: AlertPolicy(None, "request", "caller", "that a filter refused the content"),
    ErrorCode.CANCELLED: AlertPolicy(None, "request", "caller", "what it asked for"),
    ErrorCode.INCOMPLETE_MAX_TOKENS: AlertPolicy(None, "request", "none", "a response cut at its token limit"),
    ErrorCode.MODEL_UNAVAILABLE: AlertPolicy("error", "upstream", "upstream", "a failed result"),
    ErrorCode.AUTHENTICATION_FAILED: AlertPolicy("fatal", "upstream", "operator", _NOTHING, pages=True),
    ErrorCode.PERMISSION_DENIED: AlertPolicy("fatal", "upstream", "operator", "a failed result, final", pages=True),
    ErrorCode.QUOTA_EXHAUSTED: AlertPolicy("fatal", "upstream", "operator", _NOTHING, pages=True),
    ErrorCode.RATE_LIMITED: AlertPolicy("warning", "budget", "budget", _LATER),
    ErrorCode.UPSTREAM_OVERLOADED: AlertPolicy("error", "upstream", "upstream", _LATER),
    ErrorCode.UPSTREAM_ERROR: AlertPolicy("error", "upstream", "upstream", _LATER),
    ErrorCode.UPSTREAM_TIMEOUT: AlertPolicy("error", "upstream", "upstream", f"{_LATER}; calls may have been billed"),
    ErrorCode.UPSTREAM_UNREACHABLE: AlertPolicy("error", "upstream", "upstream", _LATER),
    ErrorCode.INVALID_RESPONSE: AlertPolicy("error", "upstream", "upstream", f"{_LATER}; calls may have been billed"),
    ErrorCode.DEADLINE_EXCEEDED: AlertPolicy("warning", "budget", "budget", "a failed result, too late to be of use"),
    ErrorCode.INTERNAL_ERROR: AlertPolicy("error", "worker", "worker", _LATER),
    State.BREAKER_OPEN: AlertPolicy("error", "upstream", "upstream", _NOTHING),
    State.REDIS_LOST: AlertPolicy("error", "redis", "operator", "nothing: no answer is published and none is lost"),
    State.RESULTS_UNPUBLISHABLE: AlertPolicy(
        "fatal", "results", "worker", "nothing: an answer that was paid for cannot be published", pages=True
    ),
    State.RESULTS_HIGH_WATER: AlertPolicy("fatal", "results", "operator", _NOTHING, pages=True),
    State.LEDGER_REFUSED: AlertPolicy("error", "redis", "worker", "nothing yet: the request is tried again"),
    State.MESSAGE_UNREADABLE: AlertPolicy("warning", "lane", "caller", "nothing: the message is a dead letter"),
    State.POISON: AlertPolicy("error", "request", "worker", "a failed result; the message is kept as a dead letter"),
    State.BUG: AlertPolicy("error", "worker", "worker", _LATER),
    State.LOOP_STALLED: AlertPolicy("error", "worker", "worker", _NOTHING),
    State.CONSUMER_STALLED: AlertPolicy("error", "worker", "worker", "nothing: requests go on, remote control is deaf"),
    State.WORKER_FAILED: AlertPolicy("fatal", "worker", "worker", _NOTHING, pages=True),
}
"""Every failure class and state, once."""

RECOVERY_IS_TOLD: Final = frozenset({ErrorCode.AUTHENTICATION_FAILED, ErrorCode.QUOTA_EXHAUSTED, State.BREAKER_OPEN})
"""States whose end one process of the fleet sees and reports; every process sees the others end, and logs it."""


def fault(code: str) -> Fault:
    """Whose fault a result with this error code is; `none` without one."""
    return ALERT_POLICY[ErrorCode(code)].fault if code else "none"
