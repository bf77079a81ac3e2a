"""One request while this process holds it: its claim, its attempts, and the order to stop."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, TypeVar

from api_contracts import ErrorCode, MappedError
from worker.admission.grants import NotAdmitted, Reservation
from worker.failures.failure import Failure
from worker.gateway.upstream import Answer, Call
from worker.queue.attempts import AttemptRecord
from worker.queue.claims import Delivery, Lease
from worker.queue.messages import Message
from worker.queue.oversize import size_of
from worker.request.calls import ended, interrupted, quoting_nothing
from worker.request.charges import FREE_CODES, Spent
from worker.request.clock import ServerClock
from worker.request.decisions import Decision

T = TypeVar("T")


class Interruption(StrEnum):
    """The reason that an execution must stop before it is done."""

    CANCELLED = "cancelled"
    DRAINING = "draining"


@dataclass(eq=False, slots=True, weakref_slot=True)
class Execution:
    """Mutable, owned by one coroutine; others may only `interrupt` it."""

    delivery: Delivery
    """Without its message once that is opened: decoded, a request would be kept twice."""
    message: Message | None = None
    message_bytes: int = 0
    """As its sender wrote it."""
    attempts: list[AttemptRecord] = field(default_factory=list[AttemptRecord])
    """The request's, oldest first, earlier deliveries included."""
    spent: Spent = field(default_factory=Spent)
    """The charges of the request's calls, those of earlier deliveries included."""
    throttle_ms: int = 0
    cost_usd: float | None = None
    """Of the answer, where the price of its model is known."""
    moving: Decision | None = None
    """While it looks for another route: the decision that holds if none is in order."""
    tried: Counter[str] = field(default_factory=Counter[str])
    """The calls that were charged to the request, by route."""
    last_call: Call | None = None
    """The last call of this delivery that ended by itself."""
    last_failure: Failure | None = None
    """Of the request; what an earlier delivery met is known by its code and status alone."""
    error: MappedError | None = None
    rejected: Failure | None = None
    """Of an answer in hand that broke its schema."""
    rejected_body: bytes | None = field(default=None, repr=False)  # the question that asks again, where that is of use
    interruption: Interruption | None = None
    grown: Callable[[int], None] = lambda _: None
    """Hears by how many bytes its share of the process' memory has changed."""
    weight: int = 0
    """That share, as it was told."""
    ahead: "asyncio.Task[Reservation | NotAdmitted] | None" = None  # the question to admission that left with the claim
    flush: Callable[[], Awaitable[None]] | None = None
    """Waits for the last of this delivery's deltas, if it streams."""
    report: "asyncio.Task[bool] | None" = None  # of an answer, under way while its result leaves
    _lease: Lease | None = None
    _clock: ServerClock = field(default_factory=ServerClock.local)
    _waited_ms: int = 0  # since the last attempt
    _finished_s: float | None = None
    _task: "asyncio.Task[Any] | None" = None

    @property
    def lease(self) -> Lease:
        assert self._lease is not None, "an execution is claimed before it is asked about"  # noqa: S101  # an invariant, not a check of input
        return self._lease

    @property
    def request(self) -> Message:
        assert self.message is not None, "an execution is decoded before it is asked about"  # noqa: S101  # an invariant, not a check of input
        return self.message

    @property
    def held_bytes(self) -> int:
        """This request's share of the process' memory: its message or the body made of it, and its answer."""
        body = len(self.message.body) if self.message else 0
        return len(self.delivery.message) + body + (len(self.answer.raw) if self.answer else 0)

    @property
    def claimed(self) -> bool:
        return self._lease is not None

    @property
    def body(self) -> bytes:
        """The bytes of the next call."""
        return self.rejected_body or self.request.body

    @property
    def text_size(self) -> int:
        """Bytes of the next call's body without its inlined images and files."""
        return len(self.body) - self.request.media.size

    @property
    def now_ms(self) -> int:
        """Server time as of the claim, carried on; before the claim, this machine's time."""
        return self._clock.now_ms

    @property
    def time_left_s(self) -> float:
        return (self.lease.deadline_ms - self.now_ms) / 1000

    @property
    def number(self) -> int:
        """The number of the last attempt, counted from 1; 0 before the first."""
        return self.attempts[-1].number if self.attempts else 0

    @property
    def calls(self) -> list[AttemptRecord]:
        """The attempts that this delivery made and ended."""
        made = self.attempts[len(self.lease.attempts) :] if self._lease else []
        return [attempt for attempt in made if attempt.outcome != "started"]

    @property
    def previous(self) -> AttemptRecord | None:
        """The attempt of this delivery that ended last; the ledger may not know its end yet."""
        calls = self.calls
        return calls[-1] if calls else None

    @property
    def upstream_ms(self) -> int:
        return sum(attempt.duration_ms or 0 for attempt in self.attempts)

    @property
    def calling(self) -> bool:
        """Whether an attempt is under way; this includes the moment in which it is recorded."""
        return bool(self.attempts) and self.attempts[-1].outcome == "started"

    @property
    def on_the_wire(self) -> bool:
        """Whether the gateway is at work for it."""
        return self.calling and self._task is not None

    @property
    def answer(self) -> Answer | None:
        return self.last_call.outcome if self.last_call and isinstance(self.last_call.outcome, Answer) else None

    @property
    def finished(self) -> bool:
        """Whether the result is known, published or not."""
        return self._finished_s is not None

    @property
    def publish_ms(self) -> int:
        """Milliseconds since the result was known."""
        return round((time.monotonic() - self._finished_s) * 1000) if self._finished_s is not None else 0

    def let_go(self) -> None:
        """Drops the message as it came, once it is decoded: two copies of a body are never held."""
        self.message_bytes = size_of(self.delivery.message)
        self.delivery = replace(self.delivery, message=b"")

    def open(self, message: Message) -> None:
        """Takes the decoded message."""
        self.message = message
        self.weigh()

    def weigh(self) -> None:
        """Tells how its share of the process' memory has changed."""
        grown = self.held_bytes - self.weight
        self.weight += grown
        self.grown(grown)

    def adopt(self, lease: Lease) -> None:
        """Takes over the request's history; an attempt without an end was interrupted and maybe billed."""
        self._lease, self._clock = lease, ServerClock(lease.now_ms)
        self.spent, self.throttle_ms = Spent(lease.failures, lease.own), lease.throttle_ms
        past = sorted(map(AttemptRecord.decode, lease.attempts), key=lambda attempt: attempt.number)
        self.attempts = [
            replace(each, outcome="interrupted", maybe_billed=True) if each.outcome == "started" else each
            for each in past
        ]
        self.tried = Counter(each.upstream for each in past if each.code and (lease.own or each.code not in FREE_CODES))
        self.last_failure = next(filter(None, map(_failure_of, reversed(past))), None)

    def charge(self, outcome: Answer | Failure, *, shared: bool) -> None:
        """Charges the call that just ended; `shared` says whether admission believes its refusal of the whole fleet."""
        before, self.spent = self.spent, self.spent.after(outcome, shared=shared)
        if self.spent != before:
            self.tried[self.attempts[-1].upstream] += 1

    @property
    def costly(self) -> int:
        """Attempts that failed and may have been billed; those that this worker broke off cost no attempt."""
        return sum(each.maybe_billed and each.outcome != "interrupted" for each in self.attempts)

    @property
    def unsaved_charges(self) -> bool:
        """Whether the ledger does not know yet what this delivery was charged."""
        return self.claimed and (self.spent.failures, self.spent.own) != (self.lease.failures, self.lease.own)

    def waited(self, waited_ms: int) -> None:
        self._waited_ms += waited_ms
        self.throttle_ms += waited_ms

    def read_clock(self, server_ms: int) -> None:
        """Takes a newer reading of server time."""
        self._clock = self._clock.corrected(server_ms)

    def start_attempt(self, upstream: str) -> AttemptRecord:
        """The attempt as it stands before its call."""
        attempt = AttemptRecord(
            number=self.number + 1, started_at_ms=self.now_ms, upstream=upstream, waited_ms=self._waited_ms
        )
        self._waited_ms = 0
        self.attempts.append(attempt)
        return attempt

    def end_attempt(self, call: Call | None) -> Call:
        """Notes how the attempt ended; None: it was interrupted. Returns its call."""
        attempt = self.attempts[-1]
        if call is None:
            self.attempts[-1] = ended(attempt, cut := interrupted(self.now_ms - attempt.started_at_ms))
            return cut
        call = quoting_nothing(call, self.message)
        self.attempts[-1], self.last_call = ended(attempt, call), call
        self.weigh()
        if isinstance(call.outcome, Failure):
            self.last_failure = call.outcome
        return call

    def reject(self, failure: Failure, again: bytes | None) -> None:
        """Turns the last attempt, which was answered, into a failed one; `again` is the body that asks once more."""
        self.rejected, self.rejected_body, self.last_failure = failure, again, failure
        self.attempts[-1] = replace(self.attempts[-1], outcome="failed", code=failure.code, maybe_billed=True)

    async def flush_deltas(self) -> None:
        """Readers take nothing after the end of a stream, and the result ends it. A second call waits for nothing."""
        flush, self.flush = self.flush, None
        if flush is not None:
            await flush()

    def finish(self, error: MappedError | None) -> None:
        """The result is known: `error` says why it is not a complete response."""
        self.error, self._finished_s = error, time.monotonic()

    def interrupt(self, why: Interruption) -> None:
        """Ends a wait or a call at once; anything else ends by itself soon and looks at `interruption` then."""
        self.interruption = self.interruption or why
        if self._task is not None:
            self._task.cancel()

    async def unless_interrupted(self, awaitable: Coroutine[Any, Any, T]) -> T | Interruption:
        """Returns what `awaitable` returns, or why it was stopped; `interrupt` cancels nothing outside of this."""
        if self.interruption is not None:
            awaitable.close()
            return self.interruption
        self._task = asyncio.current_task()
        try:
            return await awaitable
        except asyncio.CancelledError:
            if self.interruption is None or self._task is None:
                raise
            self._task.uncancel()
            return self.interruption
        finally:
            self._task = None


def _failure_of(attempt: AttemptRecord) -> Failure | None:
    """The failure as far as it is known; None without one, or for one that only another release knows."""
    known = attempt.outcome in ("failed", "throttled") and attempt.code in set(ErrorCode)
    return replace(Failure.of(ErrorCode(attempt.code)), http_status=attempt.http_status) if known else None
