"""One request on its way through this process: what was claimed, what was tried, how long it took."""

import asyncio
import time
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, TypeVar

import orjson

from api_contracts import MappedError
from worker.failures.failure import Failure, Route
from worker.gateway.upstream import Answer, Call
from worker.queue.claims import AttemptRecord, Delivery, Lease, Published
from worker.queue.messages import Message
from worker.request.results import encode_attempt, encode_result, timestamp
from worker.telemetry.tracing import CallSpan, span_id

T = TypeVar("T")


class Interruption(StrEnum):
    """Why a run must stop before it is done."""

    CANCELLED = "cancelled"
    DRAINING = "draining"


@dataclass(eq=False, slots=True, weakref_slot=True)
class Execution:
    """Mutable, owned by one coroutine; others may only `interrupt` it."""

    delivery: Delivery
    message: Message | None = None
    _lease: Lease | None = None
    attempts: list[bytes] = field(default_factory=list[bytes])
    failures: int = 0
    throttle_ms: int = 0
    upstream_ms: int = 0
    calling: bool = False
    last_failure: Failure | None = None
    answer: Answer | None = None
    error: MappedError | None = None
    http_status: int | None = None
    upstream_request_id: str | None = None
    calls: list[CallSpan] = field(default_factory=list[CallSpan])
    """Calls made by this delivery; `attempts` are the request's."""
    interruption: Interruption | None = None
    _previous: AttemptRecord | None = None
    _task: "asyncio.Task[Any] | None" = None
    _claimed: float = 0.0
    _waited_ms: int = 0
    _started_at_ms: int = 0
    _published: float | None = None

    @property
    def lease(self) -> Lease:
        assert self._lease is not None, "a run is claimed before it is asked about"  # noqa: S101  # an invariant, not a check of input
        return self._lease

    @property
    def request(self) -> Message:
        assert self.message is not None, "a run is decoded before it is asked about"  # noqa: S101  # an invariant, not a check of input
        return self.message

    @property
    def claimed(self) -> bool:
        return self._lease is not None

    @property
    def on_the_wire(self) -> bool:
        """Whether the gateway is at work for it; `calling` includes the moment in which the attempt is recorded."""
        return self.calling and self._task is not None

    def adopt(self, lease: Lease) -> None:
        """Takes over the request's history; an attempt that never ended was interrupted and maybe billed."""
        self._lease, self._claimed = lease, time.monotonic()
        self.failures, self.throttle_ms = lease.failures, lease.throttle_ms
        for past in sorted((orjson.loads(attempt) for attempt in lease.attempts), key=lambda past: past["number"]):
            if past.get("outcome") == "started":
                past |= {"outcome": "interrupted", "maybe_billed": True}
            self.upstream_ms += past.get("duration_ms") or 0
            self.attempts.append(orjson.dumps(past))

    @property
    def now_ms(self) -> int:
        """Server time: read at the claim, carried on by the monotonic clock."""
        return self.lease.now_ms + round((time.monotonic() - self._claimed) * 1000)

    @property
    def time_left_s(self) -> float:
        return (self.lease.deadline_ms - self.now_ms) / 1000

    @property
    def number(self) -> int:
        """Of the attempt under way, counted from 1."""
        return orjson.loads(self.attempts[-1])["number"] if self.attempts else 0

    def waited(self, waited_ms: int) -> None:
        self._waited_ms += waited_ms
        self.throttle_ms += waited_ms

    def start_attempt(self, upstream: str) -> AttemptRecord:
        """An attempt as it stands before its call."""
        number, self.calling = self.number + 1, True
        self._started_at_ms = self.now_ms
        self.attempts.append(
            encode_attempt(number, started_at_ms=self._started_at_ms, upstream=upstream, waited_ms=self._waited_ms)
        )
        return AttemptRecord(number, self.attempts[-1])

    def end_attempt(self, upstream: str, call: Call | None) -> AttemptRecord:
        """The attempt's outcome; without a call it was interrupted and maybe billed."""
        number = self.number
        failure = call.outcome if call and isinstance(call.outcome, Failure) else None
        answered = call.outcome.failure if call and isinstance(call.outcome, Answer) else None
        code = failure or answered
        duration_ms = call.duration_ms if call else self.now_ms - self._started_at_ms
        self.upstream_ms += duration_ms
        self.attempts[-1] = encode_attempt(
            number,
            started_at_ms=self._started_at_ms,
            upstream=upstream,
            waited_ms=self._waited_ms,
            outcome=_outcome(call),
            duration_ms=duration_ms,
            http_status=call.http_status if call else None,
            code=code.code if code else None,
            upstream_request_id=call.upstream_request_id if call else None,
            maybe_billed=failure.maybe_billed if failure else call is None,
        )
        self.last_failure = failure or self.last_failure
        self.calls.append(
            CallSpan(
                started_at_ms=self._started_at_ms,
                duration_ms=duration_ms,
                waited_ms=self._waited_ms,
                http_status=call.http_status if call else None,
                code=code.code if code else "" if call else "cancelled",
            )
        )
        self._waited_ms, self.calling = 0, False
        if call is not None:
            self.http_status, self.upstream_request_id = call.http_status, call.upstream_request_id
            self.answer = call.outcome if isinstance(call.outcome, Answer) else None
        self._previous = AttemptRecord(number, self.attempts[-1])
        return self._previous

    @property
    def previous(self) -> AttemptRecord | None:
        """The attempt that ended last, as it should be remembered."""
        return self._previous

    def interrupt(self, why: Interruption) -> None:
        """Ends a wait or a call at once; anything else ends by itself soon and looks at `interruption` then."""
        self.interruption = self.interruption or why
        if self._task is not None:
            self._task.cancel()

    async def unless_interrupted(self, awaitable: Coroutine[Any, Any, T]) -> T | Interruption:
        """What `awaitable` returns, or why it was stopped; only in here does `interrupt` cancel anything."""
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

    @property
    def publish_ms(self) -> int:
        """How long ago the answer was made; asked when it is published, how long that took."""
        return round((time.monotonic() - self._published) * 1000) if self._published is not None else 0

    @property
    def answered(self) -> bool:
        """Whether there is an answer, published or not."""
        return self._published is not None

    def ids(self) -> dict[str, str]:
        """What every log line of this run carries."""
        if self.message is None:
            return {"lane": self.delivery.lane}
        return {
            "request_id": self.message.request_id,
            "task_id": self.message.task_id,
            "tenant": self.message.tenant,
            "lane": self.delivery.lane,
            "trace_id": self.message.trace_id,
            "span_id": span_id(self.delivery.token),
        }

    def refuse(self, error: MappedError) -> bytes:
        """A failed result for a delivery that never got to claim its request id."""
        message, now = self.request, timestamp(round(time.time() * 1000))
        self.error, self._published = error, time.monotonic()
        timing = dict.fromkeys(("enqueued_at", "claimed_at", "finished_at"), now)
        durations = dict.fromkeys(("queue_ms", "throttle_ms", "upstream_ms", "total_ms"), 0)
        return self._encode(message, "failed", None, error, {**timing, "enqueued_at_source": "worker", **durations})

    def publish(
        self,
        outcome: Literal["completed", "incomplete", "failed"],
        response: bytes | None,
        error: MappedError | None,
    ) -> Published:
        """The answer, with everything the run knows of itself."""
        self.error, self._published = error, time.monotonic()
        lease, message, finished_at_ms = self.lease, self.request, self.now_ms
        timing = {
            "enqueued_at": timestamp(lease.enqueued_at_ms),
            "enqueued_at_source": lease.enqueued_at_source,
            "claimed_at": timestamp(lease.claimed_at_ms),
            "finished_at": timestamp(finished_at_ms),
            "queue_ms": max(0, lease.claimed_at_ms - lease.enqueued_at_ms),
            "throttle_ms": self.throttle_ms,
            "upstream_ms": self.upstream_ms,
            "total_ms": max(0, finished_at_ms - lease.enqueued_at_ms),
        }
        result = self._encode(message, outcome, response, error, timing)
        return Published(outcome, error is not None and error.retryable, message.streams, result)

    def _encode(
        self,
        message: Message,
        outcome: str,
        response: bytes | None,
        error: MappedError | None,
        timing: Mapping[str, Any],
    ) -> bytes:
        return encode_result(
            request_id=message.request_id,
            tenant=message.tenant,
            lane=self.delivery.lane,
            outcome=outcome,
            response=response,
            error=error,
            attempts=self.attempts,
            timing=timing,
            metadata=message.metadata,
            trace_id=message.trace_id,
        )


def _outcome(call: Call | None) -> str:
    """An attempt's outcome in the words of the contract."""
    if call is None:
        return "interrupted"
    if isinstance(call.outcome, Answer):
        return call.outcome.status
    return "throttled" if call.outcome.route is Route.THROTTLE else "failed"
