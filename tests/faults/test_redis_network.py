"""Real workers whose connections to Redis break in the middle of a reply, or fall silent without a word."""

from collections import Counter
from collections.abc import Generator

import pytest
from support.polling import wait_until
from support.producer import Producer
from support.redis_parts import BadNetwork
from support.worker_process import Fleet, WorkerProcess

from worker.devtools.devstack import Simulator

CALLS = 30
LEASES = "responses:leases:interactive"


@pytest.fixture
def worker(network: BadNetwork, gateway: Simulator) -> Generator[WorkerProcess]:
    with Fleet(network.url, gateway.url) as fleet:
        yield fleet.start()


def answered_once(producer: Producer, gateway: Simulator, asked: list[str]) -> None:
    results = producer.results(len(asked), within_s=30)
    assert Counter(result["request_id"] for result in results) == Counter(asked)
    assert len(gateway.calls()) == len(asked)
    assert producer.leftovers() == {}


def test_replies_that_break_off_cost_nothing(
    worker: WorkerProcess, network: BadNetwork, producer: Producer, gateway: Simulator
) -> None:
    """Claims, grants and answers among them: what was carried out is not carried out again."""
    asked: list[str] = []
    for _ in range(10):
        asked += [producer.ask("[[sim:slow=0.2]]") for _ in range(CALLS)]
        network.break_replies(2)
        wait_until(lambda: network.broken, what="two connections to break")

    answered_once(producer, gateway, asked)
    lost, recovered = worker.events("redis.lost"), worker.events("redis.recovered")
    assert len(lost) == len(recovered) > 0


def test_connections_that_fall_silent_cost_seconds_and_no_lease(
    worker: WorkerProcess, network: BadNetwork, producer: Producer, gateway: Simulator
) -> None:
    """Calls and renewals alike find out by themselves, before the lease of 15 s is over."""
    asked = [producer.ask("[[sim:slow=25]]") for _ in range(CALLS)]
    wait_until(lambda: len(gateway.calls()) == CALLS, what="all calls in flight")
    first = producer.redis.zscore(LEASES, producer.redis.zrange(LEASES, -1, -1)[0])
    wait_until(lambda: producer.redis.zcount(LEASES, "-inf", first) == 0, what="a renewal of every lease")
    network.strand()

    late = producer.ask()
    assert producer.result(late, within_s=10)["outcome"] == "completed"
    answered_once(producer, gateway, [*asked, late])
    assert [event["error"] for event in worker.events("redis.lost")] == ["TimeoutError"]
    assert worker.events("lease.reclaimed") == worker.events("lease.lost") == []
