"""The fields of a failure class."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal

from api_contracts.errors import ErrorCode

SentryLevel = Literal["fatal", "error", "warning", "info"]
Component = Literal["upstream", "budget", "redis", "results", "lane", "request", "worker"]
Fault = Literal["none", "caller", "upstream", "budget", "operator", "worker"]

STATUS_COMMAND: Final = "responses-worker status"
RESUME: Final = "responses-worker resume[ --route ROUTE][ --account ACCOUNT]"
SEES_RETRYABLE: Final = "a failed result, retryable; nothing is lost"
SEES_BILLED: Final = f"{SEES_RETRYABLE}; calls may have been billed"
SEES_NOTHING: Final = "nothing yet: requests wait, and are answered when this ends or their deadline comes"


class State(StrEnum):
    """Failures that belong to no single request: some begin and end, the others happen once."""

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
"""The name of a failure class. Its text is the same in issues, metric labels, log lines and the runbook."""


class Route(StrEnum):
    """The next step of the request; THROTTLE and CREDENTIAL spend no attempt."""

    ANSWER = "answer"
    """Publish the failure: another call changes nothing."""
    RETRY = "retry"
    """Call again after a backoff: an attempt was spent."""
    THROTTLE = "throttle"
    """Wait until the upstream takes calls at a lower rate."""
    CREDENTIAL = "credential"
    """Wait until the credential works again: the key is refused or its wallet is empty."""


@dataclass(frozen=True, slots=True)
class RunbookEntry:
    """The runbook's text for one name. Placeholders in capitals stand for values of the event."""

    meaning: str
    first_look: str
    """The first place for an engineer to look."""
    remedy: str
    """The action that ends the condition."""
    command: str = STATUS_COMMAND
    """The command that mends it, or that tells the last thing to know. A part in brackets is about one route or
    account, and is left out where none is meant (`worker.failures.next_command`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureClass:
    """Everything the worker knows of one failure class, except the state of a case."""

    level: SentryLevel | None
    """Level of the Sentry event. None: a log line and a counter only, because operators cannot mend it."""
    component: Component
    fault: Fault
    """The party at fault, for the error budget: faults of callers do not count against the service."""
    customer_sees: str
    """The effect on customers in the meantime."""
    runbook: RunbookEntry
    pages: bool = False
    """True: the first event pages an engineer. The others are read in office hours."""
    end_is_told: bool = False
    """True: Sentry is told of the end, because only one process of the fleet sees it. Every process sees and
    logs the other ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorClass(FailureClass):
    """A failure class that can be the answer to a request."""

    route: Route
    retryable: bool
    """True if enqueueing the request again can help its caller."""
    message: str
    """One sentence for the caller."""
    costly: bool = False
    """True: such a call may have been billed. It is then repeated at most once."""
    trace_status: str
    """The status of spans in Sentry (develop.sentry.dev/sdk/telemetry/traces/span-statuses)."""
