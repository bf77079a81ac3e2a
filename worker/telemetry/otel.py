"""Traces over OTLP: OpenTelemetry's SDK batches and sends the spans of `otel_spans`; it patches and collects nothing.

Off without OTEL_EXPORTER_OTLP_ENDPOINT: nothing of OpenTelemetry is then imported. A caller's decision about its trace
is kept. Where it made none, the trace id decides, so every process and every attempt of a request decides alike.
"""

import contextlib
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from typing import Any, Final, Protocol

from worker import __version__
from worker.config.environment import WrongSettingsError, variable
from worker.config.otel_settings import OtelSettings
from worker.telemetry.otel_spans import SpanFacts
from worker.telemetry.tracing import Parent, sampled

SHUTDOWN_MS: Final = 5_000
"""The longest time that the process waits for the collector when it leaves."""
_MS: Final = 1_000_000
_TRACE_BITS: Final = 2**64


class Traces(Protocol):
    """The receiver of traces beside Sentry."""

    def wants(self, headers: Mapping[str, str], traceparent: str | None, trace_id: str) -> bool:
        """Whether the request of this trace is traced; the same answer whenever it is asked."""
        ...

    def record(self, spans: Iterable[SpanFacts], parent: Parent) -> None:
        """Hands over one request's spans without waiting."""
        ...

    def close(self) -> None: ...


class NoTraces:
    """No collector: nothing is built."""

    def wants(self, headers: Mapping[str, str], traceparent: str | None, trace_id: str) -> bool:  # noqa: ARG002  # the protocol's
        return False

    def record(self, spans: Iterable[SpanFacts], parent: Parent) -> None: ...

    def close(self) -> None: ...


class OtlpTraces:
    """OpenTelemetry's exporter behind its own batches; where the collector is slow or gone, spans are dropped."""

    def __init__(self, settings: OtelSettings) -> None:
        from opentelemetry import trace  # noqa: PLC0415  # memory and start-up time only with a collector
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415  # as above
        from opentelemetry.sdk import trace as sdk  # noqa: PLC0415  # as above
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415  # as above
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415  # as above
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope  # noqa: PLC0415  # as above

        self._rate = settings.traces_sampler_arg
        self._api: Any = trace
        self._sdk: Any = sdk
        self._scope = InstrumentationScope("responses-worker", __version__)
        self._resource = Resource.create({"service.version": __version__}).merge(_named(Resource))
        self._processor = BatchSpanProcessor(OTLPSpanExporter())

    def wants(self, headers: Mapping[str, str], traceparent: str | None, trace_id: str) -> bool:
        return sampled(headers, traceparent, self._rate, lambda: int(trace_id[16:] or "0", 16) / _TRACE_BITS)

    def record(self, spans: Iterable[SpanFacts], parent: Parent) -> None:
        trace_id = int(parent.trace_id, 16)
        for span in spans:
            self._processor.on_end(self._span(span, trace_id))

    def close(self) -> None:
        self._processor.force_flush(SHUTDOWN_MS)
        with contextlib.suppress(Exception):  # it must not keep the process from leaving
            self._processor.shutdown()

    def _span(self, facts: SpanFacts, trace_id: int) -> Any:
        parent = self._context(trace_id, facts.parent_id) if facts.parent_id else None
        status = self._api.StatusCode.ERROR if facts.error else self._api.StatusCode.UNSET
        attributes = {name: value for name, value in facts.attributes.items() if value is not None}
        return self._sdk.ReadableSpan(
            name=facts.name,
            context=self._context(trace_id, facts.span_id),
            parent=parent,
            resource=self._resource,
            attributes=attributes | ({"error.type": facts.error} if facts.error else {}),
            links=[self._api.Link(parent)] if facts.linked else (),
            kind=self._api.SpanKind[facts.kind],
            status=self._api.Status(status),
            start_time=facts.start_ms * _MS,
            end_time=max(facts.start_ms, facts.end_ms) * _MS,
            instrumentation_scope=self._scope,
        )

    def _context(self, trace_id: int, span_id: str) -> Any:
        flags = self._api.TraceFlags(self._api.TraceFlags.SAMPLED)
        return self._api.SpanContext(trace_id, int(span_id, 16), is_remote=False, trace_flags=flags)


def _named(resource: Any) -> Any:
    """OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win; the SDK's own name for a service without one does not."""
    given = resource.create({}).attributes.get("service.name", "")
    return resource({"service.name": "responses-worker"} if given.startswith("unknown_service") else {})


def check(settings: OtelSettings) -> None:
    """Looks for the extra before a worker starts. Raises WrongSettingsError."""
    if settings.wanted and not find_spec("opentelemetry"):
        said = "traces need the extra: pip install 'responses-worker[otel]'"
        raise WrongSettingsError(f"{variable(OtelSettings, 'exporter_otlp_endpoint')}: {said}")


def start(settings: OtelSettings) -> Traces:
    """The receiver for these settings."""
    return OtlpTraces(settings) if settings.wanted else NoTraces()
