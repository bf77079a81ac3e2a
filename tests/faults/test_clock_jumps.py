"""The server's clock jumps by an hour while calls are in flight: nothing is called twice, and work goes on at once."""

from collections import Counter
from collections.abc import Generator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from support.polling import wait_until
from support.producer import Producer
from support.redis_parts import ON_SHIFTED_CLOCK, SHIFT
from support.worker_process import WorkerProcess, worker_environment

from worker.devtools.devstack import Simulator

HOUR_MS = 3_600_000
CALLS = 20


@pytest.fixture
def workers(redis_url: str, gateway: Simulator, tmp_path: Path) -> Generator[list[WorkerProcess]]:
    """Two that hold ten requests each."""
    parts = str(Path(__file__).parents[1])
    own = worker_environment(redis_url, gateway.url, WORKER_CONCURRENCY=str(CALLS // 2), PYTHONPATH=parts)
    with ExitStack() as stack:
        started = [WorkerProcess(own, tmp_path / f"{number}.log", ON_SHIFTED_CLOCK) for number in range(2)]
        yield [stack.enter_context(closing(worker)).wait_started() for worker in started]


@pytest.mark.parametrize("jump_ms", [HOUR_MS, -HOUR_MS], ids=["forth", "back"])
def test_a_jump_pays_for_nothing_twice_and_stops_nothing(
    workers: list[WorkerProcess], producer: Producer, gateway: Simulator, jump_ms: int
) -> None:
    """Leases seem to have ended long ago, or to end in an hour; the longest calls outlast one of 15 s."""
    asked = [producer.ask(f"[[sim:slow={number + 1}]]", lane="batch") for number in range(CALLS)]
    wait_until(lambda: len(gateway.calls()) == CALLS, what="calls in flight")

    producer.redis.set(SHIFT, jump_ms)
    asked.append(producer.ask())

    assert producer.result(asked[-1], within_s=8)["outcome"] == "completed"
    results = producer.results(CALLS + 1, within_s=60)
    assert Counter(result["request_id"] for result in results) == Counter(asked)
    assert len(gateway.calls()) == CALLS + 1
    assert producer.leftovers() == {}
    assert all(worker.events("lease.reclaimed") == [] for worker in workers)


@pytest.mark.parametrize("jump_ms", [HOUR_MS, -HOUR_MS], ids=["forth", "back"])
def test_a_worker_killed_after_a_jump_is_replaced_all_the_same(
    workers: list[WorkerProcess], producer: Producer, gateway: Simulator, jump_ms: int
) -> None:
    """The hold that follows a jump is one lease long, and ends."""
    asked = [producer.ask("[[sim:slow=3]]", lane="batch") for _ in range(CALLS)]
    wait_until(lambda: len(gateway.calls()) == CALLS, what="calls in flight")

    producer.redis.set(SHIFT, jump_ms)
    workers[0].kill()

    results = producer.results(CALLS, within_s=50)
    assert Counter(result["request_id"] for result in results) == Counter(asked)
    assert producer.leftovers().keys() <= {"permits"}, "the dead worker's go with the first grant after a lease"
