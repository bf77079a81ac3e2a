"""`pause`, `resume`, `limits`: an operator's word holds for every worker at once."""

import pytest
from support.command_line import run
from support.polling import wait_until
from support.producer import Producer
from support.worker_process import Fleet

from worker.devtools.devstack import Simulator


def test_pause_stops_calls_until_resume(fleet: Fleet, producer: Producer, gateway: Simulator, redis_url: str) -> None:
    """What is enqueued meanwhile waits and is answered afterwards."""
    fleet.start()
    assert run("pause", WORKER_REDIS_URL=redis_url).code == 0
    task_id = producer.ask()
    wait_until(lambda: producer.redis.hlen("responses:inflight:interactive") == 1, what="a taken request")

    assert gateway.calls() == []
    assert run("resume", WORKER_REDIS_URL=redis_url).code == 0
    assert producer.result(task_id)["outcome"] == "completed"


@pytest.mark.parametrize("arguments", [["--rpm", "many"], []], ids=["no number", "nothing"])
def test_wrong_limits_are_refused(redis_url: str, arguments: list[str]) -> None:
    """One line that says what would be right."""
    done = run("limits", *arguments, WORKER_REDIS_URL=redis_url)

    assert done.code == 2
    assert "--rpm" in done.err
