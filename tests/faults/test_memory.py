"""The memory of a process is bounded in bytes: many small bodies, or a hundred that are as large as they may be."""

from collections import Counter
from typing import Final

import pytest
from support.link_runs import message
from support.producer import Producer
from support.worker_process import Fleet

from bench.throughput_probe import Processes
from worker.devtools.devstack import Simulator

MIB: Final = 1024 * 1024
LIMIT_MB: Final = 400
"""The chart gives a process 512 MiB."""


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("count", "size"),
    [(10_000, 2_000), (100, round(3.9 * MIB * 4 / 3)), (100, 2 * MIB)],
    ids=["10,000 small", "100 of 3.9 MiB", "100 of 1.5 MiB"],
)
def test_a_process_stays_within_its_memory(
    fleet: Fleet, producer: Producer, gateway: Simulator, count: int, size: int
) -> None:
    """All are in the lane before the worker comes, which has room for a hundred calls."""
    prompt = "[[sim:slow=2]]" if size > MIB else ""
    for number in range(count):
        producer.push_raw(message(f"r-{number}", size, prompt))
    worker = fleet.start()
    with Processes(worker.process.pid) as processes:
        results = producer.results(count, within_s=240)

    assert Counter(result["outcome"] for result in results) == {"completed": count}
    assert len(gateway.calls()) == count
    assert processes.peak_mb < LIMIT_MB
