"""One request as a Sentry transaction, written at the end of the request from the notes of its execution.

While the request runs, nothing is created for its trace: a request that is not sampled costs one comparison. The SDK's
own spans would cost 0.25 ms a request at any sample rate.

    queue.task.celery "responses.create"     the transaction; joins the caller's trace
      queue.process                          receive latency: from enqueueing to the claim
        limiter.wait                         one per call that waited for the budget
        gen_ai.responses                     from the first call to the end of the last; model and token usage
          http.client POST /v1/responses     one per call
      queue.publish                          of the answer

Attribute names: getsentry/sentry-conventions, 2026-08; ops and their names as Sentry's Queues and AI pages query them.
"""

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Final
from urllib.parse import unquote

from worker.failures.classes import trace_status
from worker.queue.attempts import AttemptRecord

_ORIGIN: Final = "manual"
_SAMPLED: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestSpan:
    """One delivery, from its claim on; times in ms of server time."""

    lane: str
    task_id: str
    message_bytes: int
    enqueued_at_ms: int
    claimed_at_ms: int
    finished_at_ms: int
    publish_ms: int
    result_stream: str
    code: str
    retries: int
    calls: tuple[AttemptRecord, ...]
    server: str
    gen_ai: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class Parent:
    """The trace this request belongs to."""

    trace_id: str
    span_id: str
    parent_span_id: str | None
    dsc: Mapping[str, str] = field(default_factory=dict[str, str])
    """Sentry's dynamic sampling context, as the head of the trace wrote it into its baggage."""


def span_id(token: str) -> str:
    """The same for the same delivery: log lines carry it before it is known whether there will be a span."""
    return blake2b(token.encode(), digest_size=8).hexdigest()


def sampled(
    headers: Mapping[str, str], traceparent: str | None, rate: float, draw: Callable[[], float] = random.random
) -> bool:
    """The caller's decision if it made one, else one by `rate`.

    A W3C flag says yes or no. A `sentry-trace` without a flag leaves the decision to us (and looks like a no in W3C),
    so the Celery header itself is looked at.
    """
    if traceparent is not None and _flag(traceparent) & _SAMPLED:
        return True
    if draw() >= rate:
        return False
    return traceparent is None or len(headers.get("sentry-trace", "--").split("-")) == 2  # noqa: PLR2004  # trace and span, no flag


def parent_of(headers: Mapping[str, str], trace_id: str, span: str, traceparent: str | None) -> Parent:
    """The parent of the transaction. A trace that began elsewhere keeps its sampling context."""
    parts = (traceparent or "").split("-")
    joined = len(parts) > 2 and parts[1] == trace_id  # noqa: PLR2004  # version, trace, span
    return Parent(
        trace_id=trace_id,
        span_id=span,
        parent_span_id=parts[2] if joined else None,
        dsc=_dsc(headers.get("baggage", "")) if joined else {},
    )


def transaction_of(request: RequestSpan, parent: Parent, *, own_dsc: Mapping[str, str]) -> dict[str, Any]:
    """The transaction and its spans, as Sentry's event schema has them."""
    status = trace_status(request.code)
    process = child_id(parent.span_id, "process")
    return {
        "type": "transaction",
        "transaction": "responses.create",
        "transaction_info": {"source": "task"},
        "start_timestamp": request.claimed_at_ms / 1000,
        "timestamp": request.finished_at_ms / 1000,
        "contexts": {
            "trace": {
                "trace_id": parent.trace_id,
                "span_id": parent.span_id,
                "parent_span_id": parent.parent_span_id,
                "op": "queue.task.celery",
                "status": status,
                "origin": _ORIGIN,
                "data": {"responses.error_code": request.code} if request.code else {},
                "dynamic_sampling_context": dict(parent.dsc or own_dsc),
            }
        },
        "tags": {"lane": request.lane} | ({"failure_class": request.code} if request.code else {}),
        "spans": [
            {"trace_id": parent.trace_id, "origin": _ORIGIN, **span}
            for span in _spans(request, parent.span_id, process, status)
        ],
    }


def _spans(request: RequestSpan, root: str, process: str, status: str) -> Iterable[dict[str, Any]]:
    published = request.finished_at_ms
    answered = published - request.publish_ms
    messaging = {
        "messaging.system": "redis",
        "messaging.destination.name": f"responses.{request.lane}",
        "messaging.message.id": request.task_id,
        "messaging.message.body.size": request.message_bytes,
        "messaging.message.retry.count": request.retries,
        "messaging.message.receive.latency": max(0, request.claimed_at_ms - request.enqueued_at_ms),
    }
    yield _span(process, root, "queue.process", "responses.create", request.claimed_at_ms, answered, messaging, status)
    if request.calls:
        yield from _call_spans(request, root, process, status)
    if request.result_stream:
        data = {"messaging.system": "redis", "messaging.destination.name": request.result_stream}
        yield _span(child_id(root, "publish"), root, "queue.publish", request.result_stream, answered, published, data)


def _call_spans(request: RequestSpan, root: str, process: str, status: str) -> Iterable[dict[str, Any]]:
    first, last = request.calls[0], request.calls[-1]
    gen_ai = child_id(root, "gen_ai")
    ends = last.started_at_ms + (last.duration_ms or 0)
    description = f"responses {request.gen_ai.get('gen_ai.request.model', '')}".strip()
    yield _span(
        gen_ai, process, "gen_ai.responses", description, first.started_at_ms, ends, dict(request.gen_ai), status
    )
    for number, call in enumerate(request.calls):
        started = call.started_at_ms
        if call.waited_ms:
            wait = {"throttle.wait_ms": call.waited_ms}
            span = child_id(root, f"wait{number}")
            yield _span(span, process, "limiter.wait", "rate budget", started - call.waited_ms, started, wait)
        data: dict[str, Any] = {"http.request.method": "POST", "server.address": request.server}
        if call.http_status:
            data["http.response.status_code"] = call.http_status
        name = f"POST {request.server}/v1/responses"
        ended = started + (call.duration_ms or 0)
        code = "cancelled" if call.outcome == "interrupted" else call.code or ""
        call_status = trace_status(code)
        yield _span(child_id(root, f"call{number}"), gen_ai, "http.client", name, started, ended, data, call_status)


def _span(  # noqa: PLR0917  # every span has all of these, in this order
    span: str, parent: str, op: str, name: str, start_ms: int, end_ms: int, data: dict[str, Any], status: str = "ok"
) -> dict[str, Any]:
    return {
        "span_id": span,
        "parent_span_id": parent,
        "op": op,
        "description": name,
        "start_timestamp": start_ms / 1000,
        "timestamp": max(start_ms, end_ms) / 1000,
        "status": status,
        "data": data,
    }


def child_id(root: str, name: str) -> str:
    """The id of a span below the root; the same for the same delivery."""
    return blake2b(f"{root}{name}".encode(), digest_size=8).hexdigest()


def _flag(traceparent: str) -> int:
    try:
        return int(traceparent[53:55] or "0", 16)
    except ValueError:
        return 0


def _dsc(baggage: str) -> dict[str, str]:
    """The `sentry-` items of a W3C baggage header."""
    pairs = (item.split(";")[0].strip().partition("=") for item in baggage.split(","))
    return {unquote(key)[7:]: unquote(value) for key, _, value in pairs if key.startswith("sentry-")}
