"""What becomes of requests, told once each: a line, numbers, and where it is due an incident or a trace.

Called from the request's own task; nothing here waits, and nothing here decides what happens to a request.
"""

import math
import time
import weakref
from collections import deque
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final

from worker.failures.classes import State, fault
from worker.failures.failure import Failure, Route
from worker.gateway.upstream import Answer, Call
from worker.request.execution import Execution
from worker.storage.scripts import ScriptError
from worker.telemetry import log, log_exception, speaking
from worker.telemetry.event_fields import (
    dead_letter,
    facts_of,
    first_claim,
    kind_of,
    line_of,
    model_of,
    queue_ms,
    trace_of,
)
from worker.telemetry.incidents import Incidents
from worker.telemetry.metrics import Metrics
from worker.telemetry.reports import Facts
from worker.telemetry.sentry import Sentry
from worker.telemetry.tracing import parent_of, sampled, transaction_of

THROTTLED_LINE_S: Final = 10.0
"""At most one line per so many seconds tells of refused calls; the counter has them all."""
_RECENT_CALLS: Final = 256
_HEADROOM: Final = 1.25
_PUBLISHED: Final = frozenset({"completed", "incomplete", "failed"})

_current: ContextVar[weakref.ref[Execution] | None] = ContextVar("current", default=None)
"""Weak, because a kept connection has the context, for life, of the task that opened it."""


def current() -> Execution | None:
    """The run that this task works for."""
    reference = _current.get()
    return reference() if reference else None


def _ids() -> Mapping[str, str]:
    run = current()
    return run.ids() if run else {}


@dataclass(slots=True, kw_only=True)
class RequestObserver:
    """One per process; `server` is the gateway's host, as spans name it."""

    metrics: Metrics
    incidents: Incidents
    sentry: Sentry
    server: str = ""
    _recent_s: deque[float] = field(default_factory=lambda: deque[float](maxlen=_RECENT_CALLS))
    _throttled: int = 0
    _throttled_told: float = -math.inf

    def begins(self, run: Execution) -> None:
        """From here on this task speaks for `run`."""
        _current.set(weakref.ref(run))
        speaking.set(_ids)

    def finished(self, run: Execution, disposition: str) -> None:
        """The canonical line, and everything that follows from how it ended."""
        line = line_of(run)
        log("request.finished", "warning" if "unknown_keys" in line else "info", outcome=disposition, **line)
        self._count(run, disposition)
        if disposition == "failed" and (kind := kind_of(run)) is not None:
            self.incidents.failed(kind, facts_of(run))
        elif reason := dead_letter(run, disposition):
            self.incidents.failed(reason, facts_of(run))
        self._trace(run)

    def bug(self, error: Exception) -> None:
        """A defect of ours, in the current run; it is answered `internal_error`."""
        run = current()
        if run is not None and isinstance(error, ScriptError):
            self.refused(run, error)
            return
        log_exception("request.crashed", error)
        self.incidents.crashed(error, facts_of(run) if run else Facts())

    def refused(self, run: Execution, error: ScriptError) -> None:
        """The ledger will not have what this run wants to write, and that stays."""
        kind = State.RESULTS_UNPUBLISHABLE if run.answered else State.LEDGER_REFUSED
        log("ledger.refused", "error", error=str(error), unpublished=run.answered)
        self.incidents.failed(kind, facts_of(run))

    def call_ended(self, call: Call) -> None:
        """One call of the gateway, whatever came of it."""
        run = current()
        model = (model_of(run.message) if run else None) or "other"
        failure = call.outcome if isinstance(call.outcome, Failure) else call.outcome.failure
        status = str(call.http_status or "none")
        self.metrics.calls.labels(model, status, failure.code if failure else "").inc()
        seconds = call.duration_ms / 1000
        self.metrics.call_duration.labels(model, f"{status[0]}xx" if call.http_status else "none").observe(seconds)
        if isinstance(call.outcome, Answer):
            self._recent_s.append(seconds)
            self._count_tokens(model, call.outcome)
        elif call.outcome.route is Route.THROTTLE:
            self._note_throttled(call.outcome)

    def useful_concurrency(self, per_minute: float) -> float:
        """How many calls in flight this rate can keep busy, by the recent calls' 95th percentile; 0 = unknown."""
        if not self._recent_s or not per_minute:
            return 0.0
        ordered = sorted(self._recent_s)
        return math.ceil(per_minute / 60 * ordered[len(ordered) * 95 // 100] * _HEADROOM)

    def _count(self, run: Execution, disposition: str) -> None:
        metrics, lane = self.metrics, run.delivery.lane
        metrics.deliveries.labels(lane, disposition).inc()
        if disposition in _PUBLISHED:
            code = run.error.code if run.error else ""
            metrics.results.labels(lane, disposition, code, fault(code)).inc()
            if run.claimed:
                metrics.duration.labels(lane, disposition).observe((run.now_ms - run.lease.enqueued_at_ms) / 1000)
        if first_claim(run):
            metrics.queue_wait.labels(lane).observe((queue_ms(run) or 0) / 1000)
        if run.throttle_ms:
            metrics.throttle_wait.labels(lane).observe(run.throttle_ms / 1000)
        if reason := dead_letter(run, disposition):
            metrics.dead_letters.labels(reason).inc()

    def _count_tokens(self, model: str, answer: Answer) -> None:
        usage = answer.usage
        if usage is None:
            return
        tokens = self.metrics.tokens
        tokens.labels(model, "input").inc(usage.input_tokens)
        tokens.labels(model, "output").inc(usage.output_tokens)
        tokens.labels(model, "cached").inc(usage.cached_tokens)
        tokens.labels(model, "reasoning").inc(usage.reasoning_tokens)

    def _note_throttled(self, failure: Failure) -> None:
        self._throttled += 1
        now = time.monotonic()
        if now - self._throttled_told < THROTTLED_LINE_S:
            return
        log(
            "upstream.throttled",
            calls=self._throttled,
            retry_after_s=failure.retry_after_s,
            limit=failure.limit,
            http_status=failure.http_status,
        )
        self._throttled, self._throttled_told = 0, now

    def _trace(self, run: Execution) -> None:
        options, message = self.sentry.options, run.message
        if not options.dsn or message is None or not run.claimed:
            return
        raw = run.delivery.message
        if not sampled(raw, message.traceparent, options.trace_rate):
            return
        parent = parent_of(raw, message.trace_id, run.ids()["span_id"], message.traceparent)
        own_dsc = {
            "trace_id": message.trace_id,
            "public_key": self.sentry.public_key,
            "environment": options.environment,
            "release": options.release,
            "sample_rate": str(options.trace_rate),
            "sampled": "true",
        }
        self.sentry.trace(transaction_of(trace_of(run, self.server), parent, own_dsc=own_dsc))
