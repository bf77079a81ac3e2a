"""One request as OpenTelemetry's spans, built at its end from the same notes as Sentry's transaction.

    process responses.<lane>          CONSUMER; child of the producer's span where there is one, and linked to it
      limiter.wait                    INTERNAL; one per call that waited for the budget
      chat <model>                    CLIENT; from the first call to the end of the last; model and token usage
        POST                          CLIENT; one per call
      publish <result stream>         PRODUCER; the answer

Names: OpenTelemetry's semantic conventions for messaging, HTTP and generative AI (1.40, 2026-08). No attribute holds
content.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from worker.telemetry.tracing import Parent, RequestSpan, child_id

Kind = Literal["CONSUMER", "INTERNAL", "CLIENT", "PRODUCER"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanFacts:
    """One span; times in ms of server time, ids in hex. `error` is an error code of ours, empty where all went well."""

    name: str
    kind: Kind
    span_id: str
    parent_id: str | None
    start_ms: int
    end_ms: int
    attributes: Mapping[str, Any]
    error: str = ""
    linked: bool = False
    """Whether it links to the span that enqueued the request."""


def spans_of(request: RequestSpan, parent: Parent) -> Iterator[SpanFacts]:
    """The request's spans, the outermost first."""
    root = parent.span_id
    answered = request.finished_at_ms - request.publish_ms
    yield SpanFacts(
        name=f"process responses.{request.lane}",
        kind="CONSUMER",
        span_id=root,
        parent_id=parent.parent_span_id,
        start_ms=request.claimed_at_ms,
        end_ms=request.finished_at_ms,
        attributes=_messaging(request),
        error=request.code,
        linked=parent.parent_span_id is not None,
    )
    if request.calls:
        yield from _calls(request, root)
    if request.result_stream:
        yield SpanFacts(
            name=f"publish {request.result_stream}",
            kind="PRODUCER",
            span_id=child_id(root, "publish"),
            parent_id=root,
            start_ms=answered,
            end_ms=request.finished_at_ms,
            attributes={
                "messaging.system": "redis",
                "messaging.operation.name": "publish",
                "messaging.operation.type": "send",
                "messaging.destination.name": request.result_stream,
            },
        )


def _messaging(request: RequestSpan) -> dict[str, Any]:
    return {
        "messaging.system": "redis",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": f"responses.{request.lane}",
        "messaging.message.id": request.task_id,
        "messaging.message.body.size": request.message_bytes,
        "responses.lane": request.lane,
        "responses.queue_ms": max(0, request.claimed_at_ms - request.enqueued_at_ms),
        "responses.retries": request.retries,
    }


def _calls(request: RequestSpan, root: str) -> Iterator[SpanFacts]:
    first, last = request.calls[0], request.calls[-1]
    gen_ai, model = child_id(root, "gen_ai"), request.gen_ai.get("gen_ai.request.model", "")
    yield SpanFacts(
        name=f"chat {model}".strip(),
        kind="CLIENT",
        span_id=gen_ai,
        parent_id=root,
        start_ms=first.started_at_ms,
        end_ms=last.started_at_ms + (last.duration_ms or 0),
        attributes={**request.gen_ai, **_GEN_AI, "server.address": request.server},
        error=request.code,
    )
    for number, call in enumerate(request.calls):
        started = call.started_at_ms
        if call.waited_ms:
            yield SpanFacts(
                name="limiter.wait",
                kind="INTERNAL",
                span_id=child_id(root, f"wait{number}"),
                parent_id=root,
                start_ms=started - call.waited_ms,
                end_ms=started,
                attributes={"responses.throttle_ms": call.waited_ms},
            )
        yield SpanFacts(
            name="POST",
            kind="CLIENT",
            span_id=child_id(root, f"call{number}"),
            parent_id=gen_ai,
            start_ms=started,
            end_ms=started + (call.duration_ms or 0),
            attributes=_http(request.server, number, call.http_status),
            error="cancelled" if call.outcome == "interrupted" else call.code or "",
        )


_GEN_AI = {"gen_ai.operation.name": "chat", "openai.api.type": "responses"}


def _http(server: str, resent: int, status: int | None) -> dict[str, Any]:
    found: dict[str, Any] = {
        "http.request.method": "POST", "server.address": server, "url.template": "/v1/responses",
    }  # fmt: skip
    if status:
        found["http.response.status_code"] = status
    return found | ({"http.request.resend_count": resent} if resent else {})
