"""Reports the ends of requests: a log line and numbers for each, and an incident or a trace when one is due.

Called from the request's own task. Nothing here waits, and nothing here decides what happens to a request.
"""

import math
import time
import weakref
from collections import deque
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from http import HTTPStatus
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
    ids_of,
    kind_of,
    line_of,
    model_of,
    queue_ms,
    trace_of,
)
from worker.telemetry.incidents import Incidents
from worker.telemetry.metrics import Metrics
from worker.telemetry.otel import NoTraces, Traces
from worker.telemetry.otel_spans import spans_of
from worker.telemetry.sentry import Sentry
from worker.telemetry.tally import Tally
from worker.telemetry.tracing import parent_of, sampled, span_id, transaction_of

THROTTLED_LINE_S: Final = 10.0
"""Refused calls write at most one log line in this many seconds; the counter counts every one."""
_RECENT_CALLS: Final = 256
_HEADROOM: Final = 1.25
_PUBLISHED: Final = frozenset({"completed", "incomplete", "failed"})
_STATUSES: Final = frozenset({*map(int, HTTPStatus), *range(520, 531)})
"""The standard ones, and those that proxies use (Cloudflare, 520 to 530). A gateway may invent others."""

_current: ContextVar[weakref.ref[Execution] | None] = ContextVar("current", default=None)
"""Weak, because a kept connection holds the context of the task that opened it for as long as it lives."""


def current() -> Execution | None:
    """The execution that this task works for."""
    reference = _current.get()
    return reference() if reference else None


def _ids() -> Mapping[str, str]:
    execution = current()
    return ids_of(execution) if execution else {}


@dataclass(kw_only=True)
class RequestObserver:
    """Implements `RequestEvents`; `server` is the gateway's host, as spans name it."""

    metrics: Metrics
    incidents: Incidents
    sentry: Sentry
    server: str = ""
    traces: Traces = field(default_factory=NoTraces)
    tally: Tally = field(default_factory=Tally)
    _recent_s: deque[float] = field(default_factory=lambda: deque[float](maxlen=_RECENT_CALLS))
    _throttled: int = 0
    _throttled_told: float = -math.inf

    def request_began(self, execution: Execution) -> None:
        """From here on, log lines of this task carry the ids of `execution`."""
        _current.set(weakref.ref(execution))
        speaking.set(_ids)

    def request_finished(self, execution: Execution, disposition: str) -> None:
        """Writes the canonical line, and all reports that follow from the end of the delivery."""
        line = line_of(execution)
        log("request.finished", "warning" if "unknown_keys" in line else "info", outcome=disposition, **line)
        self._count(execution, disposition)
        if disposition == "failed" and (kind := kind_of(execution)) is not None:
            self.incidents.failed(kind, facts_of(execution))
        elif reason := dead_letter(execution, disposition):
            self.incidents.failed(reason, facts_of(execution))
        self._trace(execution)

    def request_crashed(self, execution: Execution, error: Exception) -> None:
        """Reports a defect of the worker; the request is answered `internal_error`."""
        log_exception("request.crashed", error)
        self.incidents.crashed(error, facts_of(execution))

    def request_refused(self, execution: Execution, error: ScriptError) -> None:
        """Reports a write that the ledger refuses for good."""
        kind = State.RESULTS_UNPUBLISHABLE if execution.finished else State.LEDGER_REFUSED
        log("ledger.refused", "error", error=str(error), unpublished=execution.finished)
        self.incidents.failed(kind, facts_of(execution))

    def call_ended(self, execution: Execution, call: Call) -> None:
        """Counts one call of the gateway, with or without an answer."""
        model = model_of(execution.message) or "other"
        failure = call.outcome if isinstance(call.outcome, Failure) else call.outcome.failure
        route = execution.attempts[-1].upstream
        self.metrics.calls.labels(route, model, _status(call.http_status), failure.code if failure else "").inc()
        seconds = call.duration_ms / 1000
        duration = self.metrics.call_duration.labels(model, _status_class(call.http_status))
        duration.observe(seconds, self._exemplar(execution))
        self.tally.called(
            execution.delivery.lane,
            execution.attempts[-1].upstream if execution.attempts else "default",
            failure.code if failure else "",
            call.duration_ms,
            throttled=call.http_status == HTTPStatus.TOO_MANY_REQUESTS,
        )
        if isinstance(call.outcome, Answer):
            self._recent_s.append(seconds)
            self._count_tokens(model, call.outcome)
            if execution.cost_usd is not None:
                self.metrics.cost.labels(model).inc(execution.cost_usd)
        elif call.outcome.route is Route.THROTTLE:
            self._note_throttled(call.outcome)

    def useful_concurrency(self, per_minute: float) -> float:
        """Calls in flight that this rate can keep busy, by the 95th percentile of recent calls; 0 = unknown."""
        if not self._recent_s or not per_minute:
            return 0.0
        ordered = sorted(self._recent_s)
        return math.ceil(per_minute / 60 * ordered[len(ordered) * 95 // 100] * _HEADROOM)

    def _count(self, execution: Execution, disposition: str) -> None:
        metrics, lane = self.metrics, execution.delivery.lane
        metrics.deliveries.labels(lane, disposition).inc()
        if disposition in _PUBLISHED:
            code = execution.error.code if execution.error else ""
            metrics.results.labels(lane, disposition, code, fault(code)).inc()
            total_ms = execution.now_ms - execution.lease.enqueued_at_ms if execution.claimed else None
            if total_ms is not None:
                metrics.duration.labels(lane, disposition).observe(total_ms / 1000, self._exemplar(execution))
            tenant = execution.message.tenant if execution.message else ""
            self.tally.answered(lane, disposition, code, tenant, total_ms)
        if first_claim(execution):
            waited_ms = queue_ms(execution) or 0
            metrics.queue_wait.labels(lane).observe(waited_ms / 1000)
            self.tally.claimed(lane, waited_ms)
        if execution.throttle_ms:
            metrics.throttle_wait.labels(lane).observe(execution.throttle_ms / 1000)
        if reason := dead_letter(execution, disposition):
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

    def _exemplar(self, execution: Execution) -> dict[str, str] | None:
        """The trace in which a slow request can be looked at, for the buckets of histograms."""
        message = execution.message
        if message is None or not self.traces.wants(message.headers, message.traceparent, message.trace_id):
            return None
        return {"trace_id": message.trace_id, "span_id": span_id(execution.delivery.token)}

    def _trace(self, execution: Execution) -> None:
        message = execution.message
        if message is None or not execution.claimed:
            return
        headers, traceparent = message.headers, message.traceparent
        options = self.sentry.options
        for_sentry = bool(options.dsn) and sampled(headers, traceparent, options.trace_rate)
        for_collector = self.traces.wants(headers, traceparent, message.trace_id)
        if not (for_sentry or for_collector):
            return
        request = trace_of(execution, self.server)
        parent = parent_of(headers, message.trace_id, span_id(execution.delivery.token), traceparent)
        if for_collector:
            self.traces.record(spans_of(request, parent), parent)
        if for_sentry:
            self.sentry.trace(transaction_of(request, parent, own_dsc=self._dsc(message.trace_id)))

    def _dsc(self, trace_id: str) -> dict[str, str]:
        """The sampling context of a trace that begins here."""
        options = self.sentry.options
        return {
            "trace_id": trace_id,
            "public_key": self.sentry.public_key,
            "environment": options.environment,
            "release": options.release,
            "sample_rate": str(options.trace_rate),
            "sampled": "true",
        }


def _status(http_status: int | None) -> str:
    """The status as a label: one of a closed set."""
    return str(http_status) if http_status in _STATUSES else _status_class(http_status)


def _status_class(http_status: int | None) -> str:
    return f"{http_status // 100}xx" if http_status and http_status in range(100, 1000) else "none"
