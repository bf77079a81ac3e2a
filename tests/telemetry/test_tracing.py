"""The trace that a request joins, and the decision to write it."""

import pytest

from worker.queue.attempts import AttemptRecord
from worker.telemetry.tracing import Parent, RequestSpan, parent_of, sampled, span_id, transaction_of

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
YES, NO = f"00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-00"


@pytest.mark.parametrize(
    ("traceparent", "headers", "rate", "written"),
    [
        (YES, {}, 0.0, True),
        (NO, {}, 1.0, False),
        (None, {}, 1.0, True),
        (None, {}, 0.0, False),
        (NO, {"sentry-trace": f"{TRACE}-{SPAN}"}, 1.0, True),
        (NO, {"sentry-trace": f"{TRACE}-{SPAN}"}, 0.0, False),
        (NO, {"sentry-trace": f"{TRACE}-{SPAN}-0"}, 1.0, False),
        (YES, {"sentry-trace": f"{TRACE}-{SPAN}-1"}, 0.0, True),
        ("nonsense", {}, 0.0, False),
    ],
    ids=["caller: yes", "caller: no", "nobody, rate 1", "nobody, rate 0", "left to us, rate 1", "left to us, rate 0",
         "sentry: no", "sentry: yes", "unreadable"],
)  # fmt: skip
def test_the_caller_decides_where_it_did(
    traceparent: str | None,
    headers: dict[str, str],
    rate: float,
    written: bool,  # noqa: FBT001  # a column of the table
) -> None:
    """W3C flag, then Sentry's; a trace that leaves it open, and a request without one, are up to the rate."""
    assert sampled(headers, traceparent, rate) is written


def test_the_rate_is_a_share() -> None:
    """Drawn per request, before anything is built."""
    draws = iter(n / 1000 for n in range(1000))

    assert sum(sampled({}, None, 0.01, lambda: next(draws)) for _ in range(1000)) == 10


def test_a_trace_that_began_elsewhere_keeps_its_sampling_context() -> None:
    """Sentry weighs a trace by what its head decided."""
    baggage = "other=1, sentry-trace_id=abc,sentry-sample_rate=0.25;p=1,sentry-release=web%401.2"
    parent = parent_of({"baggage": baggage}, TRACE, "1122334455667788", YES)

    assert parent.parent_span_id == SPAN
    assert parent.dsc == {"trace_id": "abc", "sample_rate": "0.25", "release": "web@1.2"}


def test_an_unreadable_parent_is_none() -> None:
    """A trace of our own, then."""
    assert parent_of({}, TRACE, "1122334455667788", "nonsense").parent_span_id is None


def test_the_span_id_is_known_before_there_is_a_span() -> None:
    """Log lines of a delivery name the span that may be written at its end."""
    assert span_id("token-1") == span_id("token-1") != span_id("token-2")
    assert len(span_id("token-1")) == 16


def test_spans_nest_and_follow_the_clock() -> None:
    """Each inside its parent's time, every id its own, all of one trace."""
    calls = (
        AttemptRecord(
            number=1,
            started_at_ms=1_050,
            outcome="throttled",
            duration_ms=100,
            waited_ms=40,
            http_status=429,
            code="rate_limited",
        ),
        AttemptRecord(
            number=2,
            started_at_ms=2_200,
            outcome="completed",
            duration_ms=700,
            waited_ms=1_000,
            http_status=200,
        ),
    )
    request = RequestSpan(
        lane="interactive",
        task_id="task-1",
        message_bytes=321,
        enqueued_at_ms=400,
        claimed_at_ms=1_000,
        finished_at_ms=2_910,
        publish_ms=5,
        result_stream="responses:results",
        code="",
        retries=0,
        calls=calls,
        server="gateway.example",
        gen_ai={"gen_ai.request.model": "gpt-5.4-mini"},
    )
    parent = Parent(trace_id=TRACE, span_id="1122334455667788", parent_span_id=SPAN)
    transaction = transaction_of(request, parent, own_dsc={"trace_id": TRACE})

    spans = {span["span_id"]: span for span in transaction["spans"]}
    assert len(spans) == len(transaction["spans"]) == 7
    assert {span["trace_id"] for span in spans.values()} == {TRACE}
    roots = {"1122334455667788": transaction}
    for span in spans.values():
        above = (spans | roots)[span["parent_span_id"]]
        assert above["start_timestamp"] <= span["start_timestamp"] <= span["timestamp"] <= above["timestamp"]
    ops = [span["op"] for span in transaction["spans"]]
    assert ops == ["queue.process", "gen_ai.responses", "limiter.wait", "http.client", "limiter.wait", "http.client",
                   "queue.publish"]  # fmt: skip
    waits = [span["timestamp"] - span["start_timestamp"] for span in spans.values() if span["op"] == "limiter.wait"]
    assert waits == pytest.approx([0.04, 1.0])
    statuses = [span["status"] for span in transaction["spans"] if span["op"] == "http.client"]
    assert statuses == ["resource_exhausted", "ok"]
    assert spans[next(iter(spans))]["data"]["messaging.message.receive.latency"] == 600
