"""The decisions about a request, as values, and the errors of answers that need no call.

Three kinds of "not now" are never mixed. *Waiting* for the budget, or for an upstream that refuses the whole fleet,
spends nothing. *Retry* was charged to the request, and comes back at a set time. *Failed* is an answer.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Literal

from api_contracts import ErrorCode, MappedError
from worker.queue.claims import Refusal


class Disposition(StrEnum):
    """The end of one delivery: metric label and log field."""

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


@dataclass(frozen=True, slots=True)
class Finish:
    """Publish the one result; with a `dead_letter_reason` the message becomes a dead letter as well."""

    outcome: Literal["completed", "incomplete", "failed"]
    error: MappedError | None = None
    response: bytes | None = field(default=None, repr=False)
    dead_letter_reason: str = ""

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
    """Hand the request back to its lane, spending nothing: to the front, or `behind` all that wait there."""

    behind: bool = False
    disposition: Disposition = Disposition.RELEASED


@dataclass(frozen=True, slots=True)
class Abandon:
    """Write nothing: the request belongs to another delivery."""

    disposition: Disposition = Disposition.SUPERSEDED


Decision = Finish | Park | Release | Abandon


@dataclass(frozen=True, slots=True)
class Move:
    """Call again at once, by a route that the request has not tried; `otherwise` if no such route is in order."""

    otherwise: Decision


def _error(code: ErrorCode, message: str, *, retryable: bool = False) -> MappedError:
    return MappedError(code=code, message=message, retryable=retryable, http_status=None, upstream=None, violations=[])


CONFLICT: Final = _error(
    ErrorCode.DUPLICATE_CONFLICT, "this request_id belongs to a request with another body; choose another id"
)
GONE: Final = _error(
    ErrorCode.DUPLICATE_CONFLICT,
    "this request_id was answered before and its result is no longer kept; choose another id to run it again",
)
WITHHELD: Final = _error(
    ErrorCode.DUPLICATE_CONFLICT,
    "this request_id was answered on another stream, and results go to one stream only; read it there",
)
CROWDED: Final = _error(
    ErrorCode.DUPLICATE_CONFLICT,
    "this request is under way, and 16 result streams wait for it already; ask again once it is answered",
    retryable=True,
)
CANCELLED: Final = _error(ErrorCode.CANCELLED, "the request was cancelled")
EXPIRED: Final = _error(ErrorCode.DEADLINE_EXCEEDED, "the deadline passed before the request could run")
THROTTLED: Final = _error(
    ErrorCode.RATE_LIMITED, "the deadline passed while waiting for the rate budget", retryable=True
)
OVERSIZED: Final = _error(ErrorCode.REQUEST_TOO_LARGE, "the request needs more tokens than a whole minute's budget")
POISON: Final = _error(
    ErrorCode.INTERNAL_ERROR,
    "workers died while they held this request; it is kept as a dead letter",
    retryable=True,
)
LOST: Final = _error(
    ErrorCode.INTERNAL_ERROR,
    "this message was lost with every worker that took it; it is kept as a dead letter",
    retryable=True,
)
BUG: Final = _error(ErrorCode.INTERNAL_ERROR, "the worker failed on this request", retryable=True)

REFUSED: Final[Mapping[Refusal, MappedError | Disposition]] = {
    Refusal.CONFLICT: CONFLICT,
    Refusal.WITHHELD: WITHHELD,
    Refusal.GONE: GONE,
    Refusal.CROWDED: CROWDED,
    Refusal.DUPLICATE: Disposition.DUPLICATE,
    Refusal.REPUBLISHED: Disposition.REPUBLISHED,
    Refusal.BUSY: Disposition.BUSY,
    Refusal.SUPERSEDED: Disposition.SUPERSEDED,
    Refusal.DEAD_LETTERED: Disposition.DEAD_LETTERED,
}
"""Each refusal of the ledger: the error to answer, or, where the delivery is over already, how it ended."""
