"""Operators: `pause`, `resume` and `limits` hold for every worker at once; `runbook` explains names."""

import pytest
from support.command_line import called, run
from support.polling import wait_until
from support.producer import Producer
from support.worker_process import Fleet

from api_contracts import ErrorCode
from worker.devtools.devstack import Simulator
from worker.telemetry.metrics import METRICS
from worker.telemetry.rules import RULES
from worker.telemetry.runbook import WAITS
from worker.telemetry.runbook_pages import entries_of, metric_of


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
        ("NothingMoving", ["nothing_moving", "status"]),
        ("process_full", ["queue_age"]),
        ("responses_worker_lane_messages", ["Messages of a lane", "nothing_moving", "lane_unserved"]),
        ("queue_wait_seconds_bucket", ["From enqueueing to the first claim", "queue_age"]),
        ("loop_lag_seconds", ["How late the event loop is"]),
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


def test_the_runbook_knows_every_name_that_somebody_may_meet() -> None:
    """Codes, states, alerts, reasons to wait and metrics."""
    codes = [str(code) for code in ErrorCode]
    alerts = [rule.alert for rule in RULES]
    unknown = [name for name in (*codes, *alerts, *WAITS) if not entries_of(name)]

    assert unknown == []
    assert all(metric_of(spec.name) is spec for spec in METRICS)
