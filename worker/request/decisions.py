"""What follows for a request: the decisions as values, and the answers that need no call. Pure.

Three kinds of "not now" are never mixed. *Waiting* for the budget spends nothing. *Retry* spends an attempt and comes
back at a set time. *Failed* is an answer.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Literal

from api_contracts import ErrorCode, MappedError, Violation
from worker.admission.grants import NotAdmitted, Reason
from worker.failures.failure import Failure
from worker.gateway.answers import Answer
from worker.queue.claims import Refusal
from worker.request.execution import Interruption


class Disposition(StrEnum):
    """What became of one delivery: metric label and log field."""

    COMPLETED = "completed"
    INCOMPLETE = "incomplete"
    FAILED = "failed"
    DUPLICATE = "duplicate"
    REPUBLISHED = "republished"
    BUSY = "busy"
    SUPERSEDED = "superseded"
    DELAYED = "delayed"
    RETRY_SCHEDULED = "retry_scheduled"
    RELEASED = "released"
    DEAD_LETTERED = "dead_lettered"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """Publish the one result; `dead` is the reason for a dead letter beside it."""

    outcome: Literal["completed", "incomplete", "failed"]
    error: MappedError | None = None
    response: bytes | None = field(default=None, repr=False)
    dead: str = ""

    @property
    def disposition(self) -> Disposition:
        return Disposition(self.outcome)


@dataclass(frozen=True, slots=True)
class Park:
    """Put the request aside for `delay_ms`."""

    delay_ms: int
    disposition: Disposition


@dataclass(frozen=True, slots=True)
class Release:
    """Hand the request back to the front of its lane, spending nothing."""

    disposition: Disposition = Disposition.RELEASED


@dataclass(frozen=True, slots=True)
class Abandon:
    """Write nothing: the request belongs to another delivery."""

    disposition: Disposition = Disposition.SUPERSEDED


Decision = Finish | Park | Release | Abandon


def error_of(
    code: ErrorCode, message: str, *, retryable: bool = False, violations: tuple[Violation, ...] = ()
) -> MappedError:
    """The caller's view of a failure that is not the upstream's."""
    return MappedError(
        code=code, message=message, retryable=retryable, http_status=None, upstream=None, violations=list(violations)
    )


CONFLICT: Final = error_of(
    ErrorCode.DUPLICATE_CONFLICT, "this request_id belongs to a request with another body; choose another id"
)
GONE: Final = error_of(
    ErrorCode.DUPLICATE_CONFLICT,
    "this request_id was answered before and its result is no longer kept; choose another id to run it again",
)
CANCELLED: Final = error_of(ErrorCode.CANCELLED, "the request was cancelled")
EXPIRED: Final = error_of(ErrorCode.DEADLINE_EXCEEDED, "the deadline passed before the request could run")
THROTTLED: Final = error_of(
    ErrorCode.RATE_LIMITED, "the deadline passed while waiting for the rate budget", retryable=True
)
OVERSIZED: Final = error_of(ErrorCode.REQUEST_TOO_LARGE, "the request needs more tokens than a whole minute's budget")
POISON: Final = error_of(
    ErrorCode.INTERNAL_ERROR,
    "workers died while calling for this request; it is kept as a dead letter",
    retryable=True,
)
BUG: Final = error_of(ErrorCode.INTERNAL_ERROR, "the worker failed on this request", retryable=True)

REFUSED: Final[Mapping[Refusal, MappedError]] = {Refusal.CONFLICT: CONFLICT, Refusal.GONE: GONE}
"""Refusals of the ledger that must be answered; the other deliveries are gone already."""


def failed(error: MappedError, response: bytes | None = None, *, dead: str = "") -> Finish:
    return Finish(outcome="failed", error=error, response=response, dead=dead)


def failed_by(failure: Failure) -> Finish:
    return failed(failure.mapped(), failure.response)


def answered(answer: Answer) -> Finish:
    return Finish(outcome=answer.status, error=answer.failure.mapped() if answer.failure else None, response=answer.raw)


def interrupted(why: Interruption) -> Finish | Release:
    return failed(CANCELLED) if why is Interruption.CANCELLED else Release()


def not_admitted(answer: NotAdmitted | Interruption) -> Finish | Release:
    if isinstance(answer, Interruption):
        return interrupted(answer)
    if answer.reason is Reason.GATE:
        return failed_by(Failure.of(ErrorCode(answer.code)))
    return failed(OVERSIZED if answer.reason is Reason.NEVER else THROTTLED)
