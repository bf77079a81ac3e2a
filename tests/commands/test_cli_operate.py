"""Operators: `pause`, `resume` and `limits` hold for every worker at once; `runbook` explains names."""

import pytest
from support.command_line import called, run
from support.polling import wait_until
from support.producer import Producer
from support.worker_process import Fleet

from worker.devtools.devstack import Simulator


def test_pause_stops_calls_until_resume(fleet: Fleet, producer: Producer, gateway: Simulator, redis_url: str) -> None:
    """Requests that are enqueued meanwhile wait and are answered afterwards."""
    fleet.start()
    assert run("pause", WORKER_REDIS_URL=redis_url).code == 0
    task_id = producer.ask()
    wait_until(lambda: producer.redis.hlen("responses:inflight:interactive") == 1, what="a taken request")

    assert gateway.calls() == []
    assert run("resume", WORKER_REDIS_URL=redis_url).code == 0
    assert producer.result(task_id)["outcome"] == "completed"


def test_wrong_limits_are_refused(redis_url: str) -> None:
    """One line that says what would be right."""
    done = run("limits", "--rpm", "many", WORKER_REDIS_URL=redis_url)

    assert done.code == 2
    assert "--rpm" in done.err


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("queue_age", ["queue_age"]),
        ("ResponsesWorkerQueueAge", ["queue_age", "ResponsesWorkerQueueAge (page)"]),
        ("ResponsesWorkerUpstreamShut", ["authentication_failed", "quota_exhausted", "breaker_open"]),
    ],
)
def test_the_runbook_takes_entries_and_alerts(name: str, shown: list[str]) -> None:
    ran = called("runbook", name)

    assert ran.code == 0
    assert all(part in ran.out for part in shown)


def test_the_runbook_knows_the_nearest_name() -> None:
    ran = called("runbook", "ResponsesWorkerQueueAg")

    assert (ran.code, ran.err) == (2, "ResponsesWorkerQueueAg: no such entry; did you mean ResponsesWorkerQueueAge?\n")
