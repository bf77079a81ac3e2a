"""Celery's own options mean what they say: priority, expires, eta, revoke, inspect."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from celery import Celery
from support.polling import wait_until
from support.producer import Producer, body
from support.worker_process import Fleet

from worker.devtools.devstack import Simulator
from worker.operations.stray_messages import StraySearch


def control(producer: Producer) -> Any:
    return producer.app.control


def test_inspect_answers(fleet: Fleet, producer: Producer, gateway: Simulator) -> None:
    """`ping`, `active`, `reserved`, `stats` and `registered` describe this worker."""
    fleet.start(concurrency=7)
    task_id = producer.ask("[[sim:slow=5]]", request_id="order-1")
    wait_until(lambda: len(gateway.calls()) == 1, what="a call in flight")

    inspect = control(producer).inspect(timeout=2)
    (pong,) = inspect.ping().values()
    (active,) = inspect.active().values()
    (stats,) = inspect.stats().values()
    (registered,) = inspect.registered().values()

    assert pong == {"ok": "pong"}
    assert [(task["id"], task["request_id"], task["args"]) for task in active] == [(task_id, "order-1", [])]
    assert stats["pool"]["max-concurrency"] == 7
    assert stats["pool"]["lanes"] == {"interactive": 4, "batch": 1}
    assert registered == ["responses.create"]


def test_higher_priority_is_taken_first(fleet: Fleet, producer: Producer, gateway: Simulator) -> None:
    """As with Celery on Redis: 0 before 3 before 6 before 9, oldest first within each."""
    for priority in (9, 3, 6, 0):
        for n in range(2):
            producer.enqueue({"body": body(f"[[id:p{priority}-{n}]]")}, priority=priority)

    fleet.start(concurrency=1)
    producer.results(8)

    assert [call.tag for call in gateway.calls()] == [f"p{p}-{n}" for p in (0, 3, 6, 9) for n in range(2)]


def test_expires_is_a_deadline(fleet: Fleet, producer: Producer, gateway: Simulator) -> None:
    """Celery drops an expired task silently; here somebody is told."""
    task_id = producer.enqueue({"body": body()}, expires=datetime.now(UTC) - timedelta(seconds=1))

    fleet.start()
    result = producer.result(task_id)

    assert result["error"]["code"] == "deadline_exceeded"
    assert gateway.calls() == []


def test_countdown_waits_in_redis(fleet: Fleet, producer: Producer, gateway: Simulator) -> None:
    """A delayed request is parked, not held by a worker, and runs when its time has come."""
    fleet.start()
    enqueued = time.monotonic()
    task_id = producer.enqueue({"body": body()}, countdown=2)
    wait_until(lambda: producer.redis.zcard("responses:delayed:interactive") == 1, what="a parked request")

    assert gateway.calls() == []
    result = producer.result(task_id)

    assert time.monotonic() - enqueued >= 2
    assert result["outcome"] == "completed"
    assert len(result["attempts"]) == 1


def test_revoke_cancels_what_is_queued(fleet: Fleet, producer: Producer, gateway: Simulator) -> None:
    """A revoked id is answered `cancelled` and never called, though no worker had seen it yet."""
    fleet.start(lanes="interactive=1")
    wait_until(lambda: control(producer).ping(timeout=0.5), what="remote control")
    control(producer).revoke("task-1", reply=True, timeout=2)

    producer.enqueue({"body": body()}, task_id="task-1")
    result = producer.result("task-1")

    assert result["error"]["code"] == "cancelled"
    assert gateway.calls() == []


def test_revoke_cancels_what_is_in_flight(fleet: Fleet, producer: Producer, gateway: Simulator) -> None:
    """The call is ended within a second; the attempt says it may have been billed."""
    fleet.start()
    task_id = producer.ask("[[sim:slow=30]]")
    wait_until(lambda: len(gateway.calls()) == 1, what="a call in flight")
    wait_until(lambda: control(producer).ping(timeout=0.5), what="remote control")

    control(producer).revoke(task_id)
    result = producer.result(task_id, within_s=3)

    assert result["error"]["code"] == "cancelled"
    assert [(a["outcome"], a["maybe_billed"]) for a in result["attempts"]] == [("interrupted", True)]
    assert producer.leftovers() == {}


def test_an_app_with_a_key_prefix_sends_without_it(redis_url: str, fleet: Fleet, producer: Producer) -> None:
    """Else Celery would push onto a list that no worker serves."""
    fleet.start()
    app: Any = Celery(broker=redis_url)
    app.conf.broker_transport_options = {"global_keyprefix": "shop:"}
    message: Any = {"args": [{"body": body()}], "queue": "responses.interactive", "ignore_result": True}

    with app.connection_for_write(transport_options={"global_keyprefix": ""}) as plain:
        sent = app.send_task("responses.create", connection=plain, **message)
    app.send_task("responses.create", **message)

    assert producer.result(sent.id)["outcome"] == "completed"
    strays = StraySearch(["interactive", "batch"]).look(producer.redis, calls=10)
    assert strays == {"shop:responses.interactive": 1}


@pytest.mark.parametrize("seconds", [1, 30], ids=["ends in time", "is handed back"])
def test_sigterm_drains(fleet: Fleet, producer: Producer, gateway: Simulator, seconds: int) -> None:
    """Calls that end within the grace are answered; others go back at once, marked, and the next worker answers."""
    worker = fleet.start(shutdown_grace="3s")
    task_id = producer.ask(f"[[sim:slow={seconds}*1]]")
    wait_until(lambda: len(gateway.calls()) == 1, what="a call in flight")

    started = time.monotonic()
    worker.terminate()
    code = worker.wait()

    assert code == 0, worker.log
    assert time.monotonic() - started < 6
    if seconds == 1:
        assert producer.result(task_id)["outcome"] == "completed"
    else:
        assert producer.leftovers() == {"responses.interactive": 1}
        gateway.reset()
        fleet.start()
        wait_until(lambda: len(gateway.calls()) == 1, what="the second call")


def test_a_second_signal_leaves_now(fleet: Fleet, producer: Producer, gateway: Simulator) -> None:
    """An operator who cannot wait for the grace signals twice; the lease brings the request back."""
    worker = fleet.start(shutdown_grace="60s")
    producer.ask("[[sim:slow=30]]")
    wait_until(lambda: len(gateway.calls()) == 1, what="a call in flight")

    worker.terminate()
    wait_until(lambda: worker.events("worker.draining"), what="the drain to begin")
    worker.terminate()

    assert worker.wait(3) != 0
    assert producer.redis.hlen("responses:inflight:interactive") == 1
