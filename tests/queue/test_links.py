"""A worker behind a slow link, in seconds; tests/faults has the whole matrix and the memory of a process."""

from support.link_runs import message, run
from support.producer import Producer
from support.worker_process import Fleet

from worker.devtools.devstack import Simulator

MIB = 1024 * 1024


def test_a_slow_link_carries_each_message_once() -> None:
    """Many of a quarter megabyte."""
    result = run(20, 260_000, mbit_per_s=24, round_trip_ms=5)

    assert result.lost == []
    assert result.calls == 20
    assert result.ratio <= 1.3, result.line()


def test_a_process_takes_no_more_bytes_than_it_may_hold(fleet: Fleet, producer: Producer, gateway: Simulator) -> None:
    """It has places for a hundred; of large bodies it takes a few at a time, of small ones all."""
    for number in range(12):
        producer.push_raw(message(f"large-{number}", 2 * MIB, "[[sim:slow=0.5]]"))
    fleet.start(body_memory=4 * MIB)
    producer.results(12)
    assert 1 < gateway.stats().peak_in_flight <= 4

    gateway.reset()
    for number in range(30):
        producer.push_raw(message(f"small-{number}", 3_000, "[[sim:slow=1]]"))
    producer.results(42)
    assert gateway.stats().peak_in_flight > 20


def test_one_body_is_always_taken(fleet: Fleet, producer: Producer) -> None:
    """However large it is beside what the process may hold."""
    producer.push_raw(message("large", 4 * MIB))
    fleet.start(body_memory=MIB)

    assert producer.result("large")["outcome"] == "completed"
