"""A request's question to admission, and its next step where it is not admitted. Pure."""

import random
from dataclasses import replace
from typing import Final

from api_contracts import ErrorCode, MappedError
from worker.admission.grants import Ask, NotAdmitted, Reason
from worker.admission.tokens import call_kind
from worker.failures.failure import Failure, deadline_exceeded
from worker.request.charges import FREE_CODES
from worker.request.decisions import (
    CANCELLED,
    OVERSIZED,
    THROTTLED,
    Decision,
    Disposition,
    Finish,
    Park,
    Release,
)
from worker.request.execution import Execution, Interruption
from worker.request.retries import CALL_TIME_S

LATER_S: Final = (1.0, 4.0)
"""A request that makes room for others comes back after this long: a retry for which the fleet's retry budget has
nothing left, or a request of a tenant on probation."""


def ask_of(execution: Execution, times_ms: tuple[int, int], *, tokens: int, patience_s: float) -> Ask:
    """The request as admission must know it, with its times of enqueueing and of its deadline.

    `patience_s` is a duration, `math.inf` until the deadline.
    """
    message, spent = execution.request, execution.spent
    return Ask(
        token=execution.delivery.token,
        tokens=tokens,
        tenant=message.tenant,
        body=message.fingerprint,
        call_kind=call_kind(message.terms.model if message.terms else "", message.max_output_tokens),
        enqueued_at_ms=times_ms[0],
        ends_ms=times_ms[1],
        patience_ms=patience_s * 1000,
        failures=spent.failures,
        own=spent.own,
        refusals=sum(attempt.code in FREE_CODES for attempt in execution.attempts),
        model=message.terms.model if message.terms else "",
        tried=dict(execution.tried),
        moving=execution.moving is not None,
        keeps=message.terms.affinity if message.terms else "",
    )


def not_admitted(execution: Execution, why: NotAdmitted | Interruption, rng: random.Random) -> Decision:
    """The next step where the wait for the budget ended without a grant."""
    if isinstance(why, Interruption):
        return interrupted(why)
    match why.reason:
        case Reason.GATE:
            return Finish("failed", Failure.of(ErrorCode(why.code)).mapped())
        case Reason.NEVER:
            return Finish("failed", OVERSIZED)
        case Reason.LATE:
            return Finish("failed", _late(why, execution.last_failure))
        case Reason.LATER:
            return execution.moving or _later(execution, why.needed_ms / 1000, rng)
        case Reason.TIME:
            return Finish("failed", THROTTLED)


def interrupted(why: Interruption) -> Finish | Release:
    return Finish("failed", CANCELLED) if why is Interruption.CANCELLED else Release()


def _late(why: NotAdmitted, last: Failure | None) -> MappedError:
    """Carries the upstream's last words, if it was called before."""
    message = f"not started: {_seconds(why.left_ms)} left, calls like it take {_seconds(why.needed_ms)}"
    return replace(deadline_exceeded(last), message=message).mapped()


def _later(execution: Execution, least_s: float, rng: random.Random) -> Finish | Park:
    """Charges nothing and keeps the deadline; a retry that would miss it is answered with the failure before."""
    shortest_s, longest_s = LATER_S
    last_s = execution.time_left_s - CALL_TIME_S
    if last_s < shortest_s:
        failure = execution.last_failure or deadline_exceeded()
        return Finish("failed", failure.mapped(), failure.response)
    delay_s = min(last_s, least_s + rng.uniform(shortest_s, min(longest_s, last_s)))
    return Park(round(delay_s * 1000), Disposition.DELAYED)


def _seconds(ms: float) -> str:
    return f"{max(0.0, ms) / 1000:.3g} s"
