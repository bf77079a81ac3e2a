"""Signals of the operating system, with a call in flight: nothing that is paid for is lost or paid twice."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from support.polling import wait_until
from support.producer import Producer
from support.worker_process import Fleet, WorkerProcess, worker_environment

from worker.devtools.devstack import Simulator

Calling = Callable[[int], tuple[WorkerProcess, str]]


@pytest.fixture
def calling(fleet: Fleet, producer: Producer, gateway: Simulator) -> Calling:
    """Starts a worker, and a call in it that takes so many seconds; gives both."""

    def start(seconds: int) -> tuple[WorkerProcess, str]:
        worker = fleet.start(shutdown_grace="30s")
        task_id = producer.ask(f"a canary prompt [[sim:slow={seconds}]]")
        wait_until(lambda: len(gateway.calls()) == 1, what="a call in flight")
        return worker, task_id

    return start


def test_sighup_drains(calling: Calling, producer: Producer, gateway: Simulator) -> None:
    """A terminal that closes, or a rotation of logs, once or often: the call ends, is answered, and is made once."""
    worker, task_id = calling(2)
    for _ in range(3):
        worker.process.send_signal(signal.SIGHUP)
        wait_until(lambda: worker.events("worker.draining"), what="the drain to begin")

    assert worker.wait() == 0
    assert producer.result(task_id)["outcome"] == "completed"
    assert len(gateway.calls()) == 1


@pytest.mark.parametrize("one", [signal.SIGQUIT, signal.SIGINT], ids=["QUIT", "INT"])
def test_sigquit_and_sigint_drain(calling: Calling, producer: Producer, one: signal.Signals) -> None:
    """A second one would leave at once, as a second SIGTERM does."""
    worker, task_id = calling(1)
    worker.process.send_signal(one)

    assert worker.wait() == 0
    assert producer.result(task_id)["outcome"] == "completed"


def test_sigusr1_writes_every_stack_and_sigusr2_does_nothing(
    calling: Calling, producer: Producer, gateway: Simulator
) -> None:
    """Places only, through our log; the worker goes on, and so does its call."""
    worker, task_id = calling(2)
    worker.process.send_signal(signal.SIGUSR2)
    worker.process.send_signal(signal.SIGUSR1)

    result = producer.result(task_id)
    stacks = worker.events("thread.stack")
    assert {"MainThread", "requests", "probes"} <= {line["thread"] for line in stacks}
    assert all(" in " in place for line in stacks for place in line["stack"])
    assert "canary" not in worker.log
    assert result["outcome"] == "completed"
    assert len(gateway.calls()) == 1
    assert worker.process.poll() is None


NOHUP = """
import signal
signal.signal(signal.SIGHUP, signal.SIG_IGN)
from worker import app
from worker.config.settings import load
app.run(load())
"""


def test_nohup_is_respected(redis_url: str, gateway: Simulator, producer: Producer, tmp_path: Path) -> None:
    """A process that was started deaf to SIGHUP stays so."""
    worker = WorkerProcess(worker_environment(redis_url, gateway.url), tmp_path / "log", NOHUP)
    try:
        worker.wait_started()
        worker.process.send_signal(signal.SIGHUP)
        assert producer.result(producer.ask())["outcome"] == "completed"
        assert worker.events("worker.draining") == []
    finally:
        worker.close()
