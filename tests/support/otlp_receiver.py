"""A small OpenTelemetry collector: takes traces over OTLP/HTTP like the real one, and keeps every byte and span."""

from dataclasses import dataclass, field
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from support.loopback import Loopback, Reply, Request


@dataclass(frozen=True, slots=True)
class Span:
    """One span; ids in hex, times in ns."""

    name: str
    kind: int
    trace_id: str
    span_id: str
    parent_id: str
    start: int
    end: int
    attributes: dict[str, Any]
    links: tuple[tuple[str, str], ...]
    status: int
    resource: dict[str, Any]


@dataclass(slots=True)
class OtlpReceiver(Loopback):
    """A collector that takes everything."""

    raw: list[bytes] = field(default_factory=list[bytes])
    paths: list[str] = field(default_factory=list[str])
    spans: list[Span] = field(default_factory=list[Span])

    def answer(self, request: Request) -> Reply:
        self.paths.append(request.path)
        self.raw.append(request.body)
        for batch in ExportTraceServiceRequest.FromString(request.body).resource_spans:
            resource = _plain(batch.resource.attributes)
            self.spans += [_span(span, resource) for scope in batch.scope_spans for span in scope.spans]
        return Reply()


def _span(span: Any, resource: dict[str, Any]) -> Span:
    return Span(
        name=span.name,
        kind=span.kind,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        start=span.start_time_unix_nano,
        end=span.end_time_unix_nano,
        attributes=_plain(span.attributes),
        links=tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
        status=span.status.code,
        resource=resource,
    )


def _plain(attributes: Any) -> dict[str, Any]:
    return {attribute.key: _value(attribute.value) for attribute in attributes}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    return getattr(value, kind) if kind else None
