"""Decides what follows from a claim and from a call, and the limits of a request that names none. Pure.

`charges.py` says what a call costs its request; `waits.py` says what follows where no call was admitted.
"""

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from api_contracts import ErrorCode, GenerationRequest, MappedError, Violation
from api_contracts.envelope import Envelope
from api_contracts.limits import FARTHEST
from api_contracts.queues import result_stream
from worker.failures.failure import Failure, Route
from worker.gateway.answers import Answer
from worker.queue.claims import Claim, Delivery, Lease, Standing
from worker.queue.messages import Message
from worker.request.charges import INTERRUPTED
from worker.request.checking import may_reask
from worker.request.costs import Price
from worker.request.decisions import (
    CANCELLED,
    EXPIRED,
    POISON,
    Decision,
    Disposition,
    Finish,
    Move,
    Park,
    Release,
)
from worker.request.execution import Execution
from worker.request.retries import GiveUp, Retry, RetryPolicy
from worker.request.routes import ONE_ROUTE, RouteMap, may_move
from worker.request.waits import interrupted

FALLBACK_DEADLINE: Final = timedelta(hours=1)
"""For a lane that no setting names, where `*` is not set either."""

SUSPECT_CRASHES: Final = 2
"""After 2 crashes, at most half as many such requests run side by side as crashed together."""

POISON_CRASHES: Final = 3
"""After 3 crashes, the last of them alone in its process, the request becomes a dead letter."""

SUSPECT_DELAY_MS: Final = 2_000
"""Until a suspect asks again whether it may run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Both mappings are by lane; `*` names every lane that is not listed. Patience None: until the deadline."""

    max_body: int
    max_attempts: int
    timeout: timedelta
    default_deadline: Mapping[str, timedelta]
    result_ttl: timedelta
    contract: type[Envelope] = GenerationRequest
    """The requests that are taken."""
    republish: bool = True
    """Whether the kept result of a request goes to a second stream that asks for it."""
    patience: Mapping[str, timedelta | None] = field(default_factory=dict[str, timedelta | None])
    retries: RetryPolicy = field(default_factory=RetryPolicy)
    routes: RouteMap = ONE_ROUTE
    prices: Mapping[str, Price] = field(default_factory=dict[str, Price])
    """By model."""

    @property
    def kept_ms(self) -> int:
        """The time for which a result is kept under its request id."""
        return _ms_of(self.result_ttl)

    def claim(self, delivery: Delivery, message: Message) -> Claim:
        """The claim of this message; for its deadline, an eta counts as the time of enqueueing. Never raises."""
        enqueued_at = message.terms.enqueued_at if message.terms else None
        default_ms = _ms_of(self._default_deadline(delivery.lane))
        return Claim(
            tenant=message.tenant,
            request_id=message.request_id,
            task_id=message.task_id,
            fingerprint=message.fingerprint,
            enqueued_at_ms=_ms(enqueued_at) if enqueued_at else None,
            deadline_ms=_deadline_ms(message, default_ms),
            default_deadline_ms=default_ms,
            longest_deadline_ms=_ms_of(FARTHEST),
            stream=result_stream(message.reply_to),
            republish=self.republish,
        )

    def before_call(self, lease: Lease, message: Message) -> Finish | Park | None:
        """The reason to answer or to park a claimed request without a call, if there is one."""
        if lease.crashes >= POISON_CRASHES and lease.alone:
            return Finish("failed", POISON, dead_letter_reason="poison")
        if lease.standing is Standing.CANCELLED:
            return Finish("failed", CANCELLED)
        if violations := message.violations or _too_far(lease, message):
            return Finish("failed", invalid(message, violations), dead_letter_reason=message.dead_letter_reason)
        if lease.standing is Standing.EXPIRED:
            return Finish("failed", EXPIRED)
        delay_ms = _delay_ms(lease, message)
        return Park(delay_ms, Disposition.DELAYED) if delay_ms else None

    def after_call(
        self, execution: Execution, outcome: Answer | Failure, *, shared: bool, rng: random.Random
    ) -> Decision | Move | None:
        """The next step after a call that `execution.spent` counts already; None asks for another admission.

        Where another route may do better, the request moves there, whatever it would do otherwise. `shared` says that
        admission believes the refusal of the whole fleet. The request then waits behind those that wait now: it would
        not be the next to call, or one request that is always refused would call without end.
        """
        if isinstance(outcome, Answer):
            return Finish(outcome.status, outcome.failure.mapped() if outcome.failure else None, outcome.raw)
        if outcome is INTERRUPTED and execution.interruption is not None:
            return interrupted(execution.interruption)
        decision = self._after_failed_call(execution, outcome, shared=shared, rng=rng)
        return Move(decision) if decision is not None and self._moves(execution, outcome) else decision

    def _after_failed_call(
        self, execution: Execution, outcome: Failure, *, shared: bool, rng: random.Random
    ) -> Decision | None:
        """The next step where there is no other route."""
        if outcome.route is Route.ANSWER:
            return Finish("failed", outcome.mapped(), outcome.response)
        if outcome.route is Route.RETRY:
            return _scheduled(self._after_failure(execution, outcome, rng))
        if not shared:
            own, left_s = execution.spent.own, execution.time_left_s
            return _scheduled(self.retries.after_refusal(outcome, own=own, time_left_s=left_s, rng=rng))
        return None if outcome.route is Route.THROTTLE else Release(behind=True)

    def reasks(self, execution: Execution, outcome: Answer | Failure) -> bool:
        """Whether the model is asked once more, because its answer broke its schema."""
        rejected = not isinstance(outcome, Answer) and outcome.code is ErrorCode.OUTPUT_INVALID
        return rejected and may_reask(execution, self._max_attempts(execution))

    def timeout_s(self, message: Message, time_left_s: float) -> float:
        """The longest time of one call: never beyond the deadline."""
        own = message.terms.timeout if message.terms else None
        return min(own or self.timeout.total_seconds(), max(0.001, time_left_s))

    def patience_s(self, lane: str) -> float:
        """The longest wait on an upstream that is known to be out of order; `math.inf`: until its deadline.

        Admission counts it from the moment at which that was confirmed, or from enqueueing if that was later.
        """
        patience = self.patience.get(lane, self.patience.get("*"))
        return math.inf if patience is None else patience.total_seconds()

    def _moves(self, execution: Execution, failure: Failure) -> bool:
        message = execution.request
        model = message.terms.model if message.terms else ""
        left = failure.route is not Route.RETRY or not self.retries.used_up(
            failure,
            failures=execution.spent.failures,
            costly=execution.costly,
            max_attempts=self._max_attempts(execution),
        )
        return may_move(failure, attempts_left=left, time_left_s=execution.time_left_s) and self.routes.others(
            model, execution.tried, failure, execution.attempts[-1].upstream
        )

    def _max_attempts(self, execution: Execution) -> int:
        terms = execution.request.terms
        return (terms and terms.max_attempts) or self.max_attempts

    def _after_failure(self, execution: Execution, failure: Failure, rng: random.Random) -> Retry | GiveUp:
        return self.retries.after_failure(
            failure,
            failures=execution.spent.failures,
            costly=execution.costly,
            max_attempts=self._max_attempts(execution),
            time_left_s=execution.time_left_s,
            rng=rng,
        )

    def _default_deadline(self, lane: str) -> timedelta:
        return self.default_deadline.get(lane, self.default_deadline.get("*", FALLBACK_DEADLINE))


def suspects_beside(lease: Lease) -> int | None:
    """The number of suspects that may run in one process, this one included; None for a request that is no suspect."""
    return max(1, lease.group // 2) if lease.crashes >= SUSPECT_CRASHES else None


def kept_out(lease: Lease, time_left_s: float) -> Park | Release:
    """The next step where other requests of this process keep this one from running."""
    if suspects_beside(lease) is None:
        return Release()
    return Park(round(1000 * max(0.0, min(SUSPECT_DELAY_MS / 1000, time_left_s))), Disposition.DELAYED)


def _scheduled(decision: Retry | GiveUp) -> Park | Finish:
    if isinstance(decision, Retry):
        return Park(round(decision.delay_s * 1000), Disposition.RETRY_SCHEDULED)
    return Finish("failed", decision.failure.mapped(), decision.failure.response)


def _deadline_ms(message: Message, default_ms: int) -> int | None:
    """None: it counts from the moment at which the ledger first saw the message."""
    terms = message.terms
    given = [_ms(moment) for moment in (terms and terms.deadline, message.expires) if moment]
    if given:
        return min(given)
    if message.eta is None:
        return None
    start = (terms and terms.enqueued_at) or message.eta
    return max(_ms(start), _ms(message.eta)) + default_ms  # as numbers: a datetime of the year 9999 would overflow


def _delay_ms(lease: Lease, message: Message) -> int:
    """Milliseconds until Celery's eta, at most until the deadline, so that an expired request is answered in time."""
    return max(0, min(_ms(message.eta), lease.deadline_ms) - lease.now_ms) if message.eta else 0


def _too_far(lease: Lease, message: Message) -> tuple[Violation, ...]:
    """Times that no honest clock would write: they would outlive every record, or make a result unreadable."""
    terms, reach_ms = message.terms, _ms_of(FARTHEST)
    later = {"deadline": terms and terms.deadline, "enqueued_at": terms and terms.enqueued_at, "eta": message.eta}
    far = [name for name, moment in later.items() if moment and _ms(moment) > lease.now_ms + reach_ms]
    if terms and terms.enqueued_at and _ms(terms.enqueued_at) < lease.now_ms - reach_ms:
        far.append("enqueued_at")
    return tuple(Violation(field=name, message="must be at most 7 days away", type="too_far") for name in far)


def invalid(message: Message, violations: tuple[Violation, ...]) -> MappedError:
    """The error of a message that is no request."""
    return MappedError(
        code=ErrorCode.REQUEST_TOO_LARGE if message.too_large else ErrorCode.INVALID_REQUEST,
        message=_sentence(violations[0]),
        retryable=False,
        http_status=None,
        upstream=None,
        violations=list(violations),
    )


def _sentence(violation: Violation) -> str:
    """The contract's messages name their field; those about the Celery message around it do not."""
    named = violation.message.startswith(violation.field)
    return violation.message if named else f"{violation.field} {violation.message}"


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def _ms_of(duration: timedelta) -> int:
    return round(duration.total_seconds() * 1000)
