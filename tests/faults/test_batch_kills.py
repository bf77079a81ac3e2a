"""A large batch, whose client dies twice."""

import signal
from pathlib import Path

from support.batch_parts import BatchFile, assert_each_answered_and_paid_once
from support.producer import Producer
from support.worker_process import Fleet

from worker.devtools.devstack import Simulator

LINES = 2_000


def test_two_thousand_lines_survive_two_kills_and_are_paid_once(
    fleet: Fleet, producer: Producer, gateway: Simulator, redis_url: str, tmp_path: Path
) -> None:
    """The first time while it still enqueues, the second time while it reads the rest."""
    gateway.configure(latency_median_s=0.2)
    fleet.start(concurrency=100)
    file = BatchFile(tmp_path, redis_url)
    file.write_numbered(LINES)

    file.run_and_stop(signal.SIGKILL, after=100)
    file.run_and_stop(signal.SIGKILL, after=1_200)
    done = file.run()

    assert done.code == 0, done.err
    assert_each_answered_and_paid_once(file, gateway, LINES)
    assert producer.leftovers() == {}
