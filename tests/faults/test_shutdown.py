"""SIGTERM as a rollout sends it: calls that can finish do, the rest goes back, and nothing is lost or paid twice."""

import signal
import time
from collections import Counter
from collections.abc import Callable

import pytest
from support.polling import wait_until
from support.producer import Producer
from support.worker_process import Fleet, WorkerProcess

from worker.devtools.devstack import Simulator
from worker.devtools.simulator import CLIENT_LEFT

IN_FLIGHT = 30
GRACE_S = 8

Start = Callable[[float], WorkerProcess]


@pytest.fixture
def start(fleet: Fleet, producer: Producer, gateway: Simulator) -> Start:
    """Starts a worker and returns when thirty calls, each of so many seconds, are in flight."""

    def start(call_s: float) -> WorkerProcess:
        gateway.configure(latency_median_s=call_s)
        worker = fleet.start(shutdown_grace=f"{GRACE_S}s", concurrency=IN_FLIGHT)
        for number in range(IN_FLIGHT):
            producer.ask(request_id=str(number))
        wait_until(lambda: gateway.stats().in_flight == IN_FLIGHT, what="thirty calls in flight")
        return worker

    return start


def left(worker: WorkerProcess) -> tuple[int, float]:
    """Exit code after a SIGTERM, and how many seconds it took."""
    asked = time.monotonic()
    worker.terminate()
    return worker.wait(60), time.monotonic() - asked


def test_calls_that_fit_the_grace_finish(start: Start, producer: Producer, gateway: Simulator) -> None:
    """Thirty calls of 4 s in a grace of 8 s: all answered, each paid once, exit 0 within 10 s."""
    code, seconds = left(start(4))

    assert (code, seconds < 10) == (0, True), seconds
    assert [result["outcome"] for result in producer.entries()] == ["completed"] * IN_FLIGHT
    assert gateway.stats().by_status == {"200": IN_FLIGHT}
    assert producer.leftovers() == {}


def test_calls_longer_than_the_grace_go_back_to_the_next_worker(
    fleet: Fleet, start: Start, producer: Producer, gateway: Simulator
) -> None:
    """Thirty calls of 60 s: exit 0 within grace + 3 s, all queued again, all answered next and marked maybe_billed."""
    code, seconds = left(start(60))

    assert (code, seconds < GRACE_S + 3) == (0, True), seconds
    assert producer.leftovers() == {"responses.interactive": IN_FLIGHT}
    assert producer.entries() == []

    gateway.configure(latency_median_s=0)
    fleet.start()
    results = producer.results(IN_FLIGHT)

    assert Counter(result["request_id"] for result in results) == Counter(map(str, range(IN_FLIGHT)))
    for result in results:
        tried = [(attempt["outcome"], attempt["maybe_billed"]) for attempt in result["attempts"]]
        assert tried == [("interrupted", True), ("completed", False)]
    wait_until(lambda: gateway.stats().by_status == {str(CLIENT_LEFT): IN_FLIGHT, "200": IN_FLIGHT})
    assert producer.leftovers() == {}


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_leaves_now_and_the_leases_bring_everything_back(
    fleet: Fleet, start: Start, producer: Producer, gateway: Simulator, second: signal.Signals
) -> None:
    worker = start(60)
    worker.terminate()
    wait_until(lambda: worker.events("worker.draining"), what="a worker that leaves")
    worker.process.send_signal(second)

    assert worker.wait(2) != 0
    assert producer.leftovers()["inflight:interactive"] == IN_FLIGHT

    gateway.configure(latency_median_s=0)
    fleet.start()
    results = producer.results(IN_FLIGHT, within_s=40)

    assert Counter(result["request_id"] for result in results) == Counter(map(str, range(IN_FLIGHT)))
    assert {result["outcome"] for result in results} == {"completed"}
    assert producer.leftovers() == {}
