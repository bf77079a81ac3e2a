"""Real workers, a real Sentry client, a receiver that keeps every byte: who is told what, and what never leaves."""

import time
from collections import Counter

import pytest
from support.polling import wait_until
from support.probe_client import Probe
from support.producer import Producer, body
from support.sentry_fleet import failures, reporting
from support.sentry_receiver import SentryReceiver
from support.worker_process import Fleet

from worker.devtools.devstack import Simulator

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def test_an_outage_is_two_events_with_exact_counts(told: Fleet, producer: Producer, receiver: SentryReceiver) -> None:
    """60 different messages, three tenants, two statuses: one class, one fingerprint, and the tail at exit."""
    for n in range(60):
        marker = "broken-json" if n % 2 else "302"  # neither opens the breaker
        producer.enqueue({"body": body(f"{n} [[sim:{marker}]]"), "tenant": f"t{n % 3}"})
    worker = told.start(max_attempts=1)  # finds them all, and calls for all before the breaker can know
    producer.results(60, within_s=40)
    worker.terminate()
    assert worker.wait() == 0

    events = receiver.incidents("invalid_response")
    assert len(events) == 2
    assert failures(events) == 60
    assert len({tuple(event["fingerprint"]) for event in events}) == 1
    first, tail = events
    assert (first["level"], first["release"]) == ("error", "responses-worker@9.9")
    assert first["contexts"]["upstream"]["request_id"]
    assert tail["contexts"]["impact"]["tenants_affected"] == 3
    assert [line["failures"] for line in worker.events("incident.reported")] == [1, 59]


def test_what_passes_and_what_callers_got_wrong_show_nothing(
    told: Fleet, producer: Producer, receiver: SentryReceiver
) -> None:
    """A retried 429 or 500, a caller's 400, a filter's refusal, a cut answer: lines and counters, no event."""
    worker = told.start(max_attempts=2)
    for marker in ("429=0.1*1", "500*1", "400", "context", "filter", "incomplete"):
        producer.ask(f"[[sim:{marker}]]")
    producer.enqueue("no request")
    producer.results(7)
    wait_until(lambda: len(receiver.transactions()) >= 7, what="traces, so that events would be here as well")
    worker.terminate()
    worker.wait()

    assert receiver.events() == []


def test_a_dead_key_is_one_event_and_so_is_its_repair(
    told: Fleet, gateway: Simulator, producer: Producer, receiver: SentryReceiver
) -> None:
    """Two workers, one revoked key: after the confirming call one of them reports, and one tells the end."""
    workers = [told.start(probe_interval="1s", patience="interactive=deadline") for _ in range(2)]
    gateway.configure(revoked_keys=["sk-test-key"])
    for n in range(20):
        producer.ask(f"{n}")
    wait_until(lambda: receiver.events("authentication_failed"), within_s=15, what="the alarm")

    (event,) = receiver.events("authentication_failed")
    assert (event["level"], event["tags"]["page"]) == ("fatal", "true")
    assert event["contexts"]["impact"]["oldest_request_age_s"] > 0
    assert event["contexts"]["upstream"]["request_id"]
    shut = wait_until(lambda: [probe for probe in map(Probe.of, workers) if _shut(probe)], what="the gauge")
    assert shut[0].metric("upstream_state", state="open") == 0

    gateway.configure(revoked_keys=[])
    producer.results(20, within_s=30)
    wait_until(lambda: len(receiver.events("authentication_failed")) == 2, what="the end")
    assert receiver.events("authentication_failed")[1]["level"] == "info"
    assert len(receiver.events()) == 2


def _shut(probe: Probe) -> bool:
    return probe.metric("upstream_state", state="authentication_failed") == 1


def test_a_trace_joins_the_callers_and_tells_where_the_time_went(
    told: Fleet, producer: Producer, receiver: SentryReceiver
) -> None:
    """One id in the caller's span, our transaction, the log and the result; token usage under its current names."""
    worker = told.start()
    envelope = {"body": body("[[sim:slow=0.2]]", max_output_tokens=64), "traceparent": f"00-{TRACE}-{SPAN}-01"}
    task_id = producer.enqueue(envelope)
    result = producer.result(task_id)
    (transaction,) = wait_until(receiver.transactions, what="a transaction")
    (line,) = worker.events("request.finished")

    context = transaction["contexts"]["trace"]
    assert context["trace_id"] == line["trace_id"] == result["trace_id"] == TRACE
    assert context["span_id"] == line["span_id"]
    assert context["parent_span_id"] == SPAN
    assert (context["op"], context["status"]) == ("queue.task.celery", "ok")
    spans = {span["op"]: span for span in transaction["spans"]}
    process = spans["queue.process"]["data"]
    assert process["messaging.destination.name"] == "responses.interactive"
    assert process["messaging.message.id"] == task_id
    assert process["messaging.message.receive.latency"] >= 0
    used = spans["gen_ai.responses"]["data"]
    usage = result["response"]["usage"]
    assert used["gen_ai.request.model"] == used["gen_ai.response.model"] == "gpt-5.4-mini"
    assert used["gen_ai.request.max_tokens"] == 64
    assert used["gen_ai.usage.input_tokens"] == usage["input_tokens"]
    assert used["gen_ai.usage.output_tokens"] == usage["output_tokens"]
    assert used["gen_ai.usage.total_tokens"] == usage["total_tokens"]
    assert spans["http.client"]["timestamp"] - spans["http.client"]["start_timestamp"] >= 0.2
    assert spans["queue.publish"]["description"] == "responses:results"


def test_celerys_sentry_headers_are_honoured(told: Fleet, producer: Producer, receiver: SentryReceiver) -> None:
    """The producer's SDK wrote these: its trace, its decision, its sampling context."""
    told.start()
    headers = {"sentry-trace": f"{TRACE}-{SPAN}-1", "baggage": f"sentry-trace_id={TRACE},sentry-sample_rate=0.5"}
    producer.enqueue({"body": body()}, headers=headers)
    producer.results(1)
    wait_until(receiver.transactions, what="a transaction")

    (envelope,) = [one for one in receiver.accepted if one.items[0].kind == "transaction"]
    assert envelope.headers["trace"] == {"trace_id": TRACE, "sample_rate": "0.5"}


@pytest.mark.parametrize(
    ("marker", "status"),
    [("400", "invalid_argument"), ("500", "unavailable"), ("incomplete", "ok"), ("broken-json", "data_loss")],
)
def test_a_failed_request_is_a_failed_trace(
    told: Fleet, producer: Producer, receiver: SentryReceiver, marker: str, status: str
) -> None:
    """Sentry's queue page counts by status, and no exception ever sets it."""
    told.start(max_attempts=1)
    producer.result(producer.ask(f"[[sim:{marker}]]"))
    (transaction,) = wait_until(receiver.transactions, what="a transaction")

    assert transaction["contexts"]["trace"]["status"] == status


def test_an_answer_that_cannot_be_published_pages(
    told: Fleet, producer: Producer, receiver: SentryReceiver, gateway: Simulator
) -> None:
    """It was paid for, and its caller sees nothing: the worst there is short of silence."""
    worker = told.start()
    producer.ask("[[sim:slow=1]]")
    wait_until(lambda: len(gateway.calls()) == 1, what="a call in flight")
    producer.redis.set("responses:results", "somebody was here")
    wait_until(lambda: worker.events("ledger.refused"), what="the refusal")
    wait_until(receiver.events, what="the alarm")

    (event,) = receiver.events()
    assert event["tags"]["failure_class"] == "results_unpublishable"
    assert (event["level"], event["tags"]["page"]) == ("fatal", "true")


def test_unread_results_are_told_when_workers_stop_for_them(
    told: Fleet, producer: Producer, receiver: SentryReceiver
) -> None:
    """And the number says that this is what everything waits for."""
    producer.redis.sadd("responses:streams", "responses:results")
    producer.redis.xgroup_create("responses:results", "shop", id="0", mkstream=True)
    for _ in range(3):
        producer.redis.xadd("responses:results", {"result": "{}"})
    probe = Probe.of(told.start(results_high_water=3))
    wait_until(receiver.events, what="the alarm")

    (event,) = receiver.events()
    assert event["tags"]["failure_class"] == "results_high_water"
    assert "3 entries in responses:results" in event["contexts"]["impact"]["detail"]
    wait_until(lambda: probe.metric("waiting_seconds_total", reason="results_high_water") >= 1, what="the reason")


def test_a_worker_with_a_broken_sentry_is_as_quick(redis_url: str, gateway: Simulator, producer: Producer) -> None:
    """100 requests, half of them failing, against a Sentry that never answers; leaving costs 5 s more."""
    with SentryReceiver("hang") as receiver, reporting(redis_url, gateway.url, receiver) as fleet:
        worker = fleet.start(max_attempts=1)
        started = time.monotonic()
        for n in range(100):
            producer.ask(f"{n}" if n % 2 else f"{n} [[sim:404]]")
        producer.results(100)
        took_s = time.monotonic() - started
        worker.terminate()
        leaving = time.monotonic()
        assert worker.wait() == 0
        left_s = time.monotonic() - leaving

        lines = worker.events("request.finished")

    # Sentry's own timeouts would add minutes; a busy machine adds seconds.
    assert took_s < 40
    assert left_s < 5 + 15
    answered = [line["outcome"] for line in lines if line["outcome"] in ("completed", "failed")]
    assert Counter(answered) == {"completed": 50, "failed": 50}
