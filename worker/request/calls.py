"""The end of a call in the words of an attempt. Pure."""

from dataclasses import replace

from worker.failures.failure import Failure, Route
from worker.failures.foreign_words import foreign_id
from worker.gateway.upstream import Answer, Call
from worker.queue.attempts import AttemptOutcome, AttemptRecord
from worker.queue.messages import Message
from worker.request.charges import INTERRUPTED


def ended(attempt: AttemptRecord, call: Call) -> AttemptRecord:
    """The attempt, once its call is over."""
    outcome = call.outcome
    failure = outcome.failure if isinstance(outcome, Answer) else outcome
    return replace(
        attempt,
        outcome=_outcome(outcome),
        duration_ms=call.duration_ms,
        http_status=call.http_status,
        code=None if failure is None or failure is INTERRUPTED else failure.code,
        upstream_request_id=call.upstream_request_id,
        maybe_billed=isinstance(outcome, Failure) and outcome.maybe_billed,
    )


def quoting_nothing(call: Call, message: Message | None) -> Call:
    """The call, without an id that quotes the request: it is shown to others than the caller."""
    if call.upstream_request_id is None:
        return call
    return replace(call, upstream_request_id=foreign_id(call.upstream_request_id, message.body if message else b""))


def interrupted(duration_ms: int) -> Call:
    """The call of an attempt that was broken off."""
    return Call(outcome=INTERRUPTED, http_status=None, upstream_request_id=None, duration_ms=duration_ms, headers={})


def _outcome(outcome: Answer | Failure) -> AttemptOutcome:
    """In the words of the contract."""
    if isinstance(outcome, Answer):
        return outcome.status
    if outcome is INTERRUPTED:
        return "interrupted"
    return "throttled" if outcome.route is Route.THROTTLE else "failed"
