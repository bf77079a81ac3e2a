"""A collector of OpenTelemetry gets the spans of a real worker, and none of its content."""

import http.client
from collections.abc import Generator
from contextlib import closing

import pytest
from support.otlp_receiver import OtlpReceiver, Span
from support.probe_client import Probe
from support.producer import Producer, body
from support.worker_process import Fleet, WorkerProcess

from worker.config.environment import WrongSettingsError
from worker.config.otel_settings import OtelSettings, load_otel
from worker.devtools.devstack import Simulator
from worker.telemetry import otel

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CANARY = "the prompt that no collector may see"
CONSUMER, PRODUCER, ERROR = 5, 4, 2


@pytest.fixture
def collector() -> Generator[OtlpReceiver]:
    with OtlpReceiver() as receiver:
        yield receiver


@pytest.fixture
def traced(redis_url: str, gateway: Simulator, collector: OtlpReceiver) -> Generator[Fleet]:
    own = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "100",
           "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test"}  # fmt: skip
    with Fleet(redis_url, gateway.url, forked=True, **own) as fleet:
        yield fleet


def test_a_request_is_spans_of_its_callers_trace(traced: Fleet, producer: Producer, collector: OtlpReceiver) -> None:
    """Linked to the producer, named by the conventions, pointed to by histograms, and without content."""
    worker = traced.start(concurrency=1)
    wanted = {"body": body(f"{CANARY} [[sim:500*1]]", max_output_tokens=64), "traceparent": f"00-{TRACE}-{SPAN}-01"}
    task_id = producer.enqueue(wanted)
    producer.enqueue({"body": body(CANARY), "traceparent": f"00-{'5' * 32}-{SPAN}-00"}, task_id="unsampled")
    producer.ask(f"{CANARY} [[sim:400]]", request_id="own-trace")
    producer.results(3)
    scraped = _openmetrics(worker)
    worker.terminate()
    assert worker.wait() == 0, worker.log

    found = [span for span in collector.spans if span.trace_id == TRACE]
    root = _one(found, "process responses.interactive", parent_id=SPAN)
    publish = _one(found, "publish responses:results")
    chat = _one(found, "chat gpt-5.4-mini", status=0)
    refused, answered = sorted((span for span in found if span.name == "POST"), key=lambda span: span.start)
    assert root.kind == CONSUMER
    assert root.links == ((TRACE, SPAN),)
    assert root.attributes["messaging.message.id"] == task_id
    assert root.attributes["messaging.destination.name"] == "responses.interactive"
    assert (publish.kind, publish.attributes["messaging.operation.type"]) == (PRODUCER, "send")
    assert chat.attributes | {
        "gen_ai.operation.name": "chat", "openai.api.type": "responses", "gen_ai.request.model": "gpt-5.4-mini",
        "gen_ai.request.max_tokens": 64, "gen_ai.provider.name": "openai",
    } == chat.attributes  # fmt: skip
    assert chat.attributes["gen_ai.usage.output_tokens"] > 0
    assert (refused.status, refused.attributes["error.type"]) == (ERROR, "upstream_error")
    assert refused.attributes["http.response.status_code"] == 500
    assert answered.attributes["http.response.status_code"] == 200
    assert {root.resource["service.name"], root.resource["deployment.environment.name"]} == {"responses-worker", "test"}
    assert {span.trace_id for span in collector.spans} >= {TRACE}
    assert not [span for span in collector.spans if span.trace_id == "5" * 32]
    own = next(span for span in collector.spans if span.attributes.get("error.type") == "invalid_request")
    assert own.links == ()
    assert collector.paths[0] == "/v1/traces"
    assert not [raw for raw in collector.raw if CANARY.encode() in raw]
    assert f'trace_id="{TRACE}"' in scraped
    assert "_created" not in scraped


def _one(spans: list[Span], name: str, *, parent_id: str = "", status: int | None = None) -> Span:
    """The span of this name, of several deliveries of one request the one that matches."""
    found = [span for span in spans if span.name == name and status in (None, span.status)]
    return next(span for span in reversed(found) if parent_id in ("", span.parent_id))


def _openmetrics(worker: WorkerProcess) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", Probe.of(worker).port, timeout=5)
    with closing(connection):
        connection.request("GET", "/metrics", headers={"Accept": "application/openmetrics-text"})
        return connection.getresponse().read().decode()


def test_every_process_picks_the_same_traces() -> None:
    """By the trace id, so that the attempts of a request, and the exemplars of its calls, are traced together."""
    settings = OtelSettings(exporter_otlp_endpoint="http://127.0.0.1:9", traces_sampler_arg=0.25)
    one, other = otel.start(settings), otel.start(settings)
    ids = [f"{n:032x}" for n in range(0, 2**64, 2**57)]

    picked = [one.wants({}, None, trace_id) for trace_id in ids]

    assert picked == [other.wants({}, None, trace_id) for trace_id in ids]
    assert sum(picked) == len(ids) / 4
    one.close()
    other.close()


def test_without_an_address_nothing_is_exported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    assert isinstance(otel.start(load_otel()), otel.NoTraces)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    assert load_otel().wanted
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert not load_otel().wanted


def test_a_wrong_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    with pytest.raises(WrongSettingsError, match="OTEL_EXPORTER_OTLP_PROTOCOL"):
        load_otel()


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otel, "find_spec", str.isdigit)  # False for every name
    with pytest.raises(WrongSettingsError, match=r"pip install 'responses-worker\[otel\]'"):
        otel.check(OtelSettings(exporter_otlp_endpoint="http://127.0.0.1:4318", traces_sampler_arg=1))
