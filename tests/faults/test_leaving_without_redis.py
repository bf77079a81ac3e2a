"""SIGTERM while Redis is away: only what costs money is waited for."""

import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager

import pytest
from support.polling import wait_until
from support.producer import Producer
from support.redis_parts import stopped
from support.worker_process import Fleet, WorkerProcess

from worker.devtools.devstack import EmbeddedValkey, Simulator, embedded_valkey

GRACE_S = 20
SOON_S = 14
"""Well below the grace; a worker that leaves takes about five seconds, where Redis hangs Celery takes eight."""


@pytest.fixture
def server() -> Generator[EmbeddedValkey]:
    with embedded_valkey() as server:
        yield server


@pytest.fixture
def producer(server: EmbeddedValkey) -> Generator[Producer]:
    with Producer(server.url) as producer:
        yield producer


@pytest.fixture
def worker(server: EmbeddedValkey, gateway: Simulator) -> Generator[WorkerProcess]:
    with Fleet(server.url, gateway.url) as fleet:
        yield fleet.start(shutdown_grace=f"{GRACE_S}s", requests_per_minute=60, burst_seconds=1, max_in_flight=1)


def seconds_to_leave(worker: WorkerProcess) -> float:
    """From SIGTERM to exit 0."""
    began = time.monotonic()
    worker.terminate()
    assert worker.wait(GRACE_S + 15) == 0, worker.log
    return time.monotonic() - began


def lost(worker: WorkerProcess) -> bool:
    return bool(worker.events("redis.lost"))


@contextmanager
def killed(server: EmbeddedValkey) -> Generator[None]:
    server.kill()
    yield


@pytest.mark.parametrize("away", [killed, stopped], ids=["killed", "stopped"])
def test_a_worker_that_calls_nobody_leaves_early(
    server: EmbeddedValkey,
    worker: WorkerProcess,
    producer: Producer,
    away: Callable[[EmbeddedValkey], AbstractContextManager[None]],
) -> None:
    """A held request waits for the budget, and goes back by itself when its lease is over."""
    producer.redis.zadd("responses:permits:default", {"another worker's": (time.time() + 60) * 1000})
    for _ in range(3):
        producer.ask()
    wait_until(lambda: producer.redis.hlen("responses:inflight:interactive") == 3, what="three requests to be held")

    with away(server):
        wait_until(lambda: lost(worker), what="the loss to be noticed")
        assert seconds_to_leave(worker) < SOON_S


def test_a_call_in_flight_is_waited_for_and_so_is_its_answer(
    server: EmbeddedValkey, worker: WorkerProcess, producer: Producer, gateway: Simulator
) -> None:
    """Redis comes back after the call has ended, and before the grace does: the paid answer is published."""
    asked = producer.ask("[[sim:slow=3]]")
    wait_until(lambda: len(gateway.calls()) == 1, what="a call in flight")
    with stopped(server):
        wait_until(lambda: lost(worker), what="the loss to be noticed")
        worker.terminate()
        wait_until(lambda: worker.events("worker.draining"), what="the drain to begin")
        wait_until(lambda: gateway.stats().in_flight == 0, what="the call to end")
        ended = time.monotonic()
        wait_until(lambda: time.monotonic() - ended > 5, what="longer than Redis alone is waited for")

    assert worker.wait() == 0
    assert producer.result(asked)["outcome"] == "completed"
    assert len(gateway.calls()) == 1


def test_an_answer_that_nobody_takes_is_given_up_with_the_grace(
    server: EmbeddedValkey, worker: WorkerProcess, producer: Producer, gateway: Simulator
) -> None:
    producer.ask("[[sim:slow=1]]")
    wait_until(lambda: len(gateway.calls()) == 1, what="a call in flight")
    server.kill()
    wait_until(lambda: lost(worker), what="the loss to be noticed")

    assert GRACE_S <= seconds_to_leave(worker) < GRACE_S + SOON_S
    assert [event["stranded"] for event in worker.events("worker.stopped")] == [1]
