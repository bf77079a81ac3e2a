"""Celery's events, as `celery events` and Flower hear them of a real worker."""

import base64
import json
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from support.polling import wait_until
from support.producer import Producer, body
from support.worker_process import Fleet

CANARY = "the prompt that no event may hold"

Heard = list[dict[str, Any]]


@contextmanager
def heard(producer: Producer) -> Generator[Callable[[], Heard]]:
    """Every event since the beginning, as kombu puts it on its channels."""
    events: Heard = []
    redis: Any = producer.redis

    def collect() -> Heard:
        while message := channel.get_message(ignore_subscribe_messages=True):
            events.append(json.loads(base64.b64decode(json.loads(message["data"])["body"])))
        return events

    with redis.pubsub() as channel:
        channel.psubscribe("/*.celeryev/*")
        yield collect


def test_workers_and_tasks_are_told(fleet: Fleet, producer: Producer) -> None:
    """Online, heartbeats, every end of a task under Celery's names; no content, and nothing when nobody asked."""
    with heard(producer) as collect:
        worker = fleet.start(celery_events="true", max_attempts=2)
        wait_until(_are(collect, "worker-heartbeat"), what="a heartbeat")
        completed = producer.ask(CANARY)
        failed = producer.ask(f"{CANARY} [[sim:400]]")
        retried = producer.ask(f"{CANARY} [[sim:500*1]]")
        cancelled = producer.enqueue({"body": body(CANARY), "deadline": "2026-01-01T00:00:00Z"})
        producer.results(4)
        worker.terminate()
        assert worker.wait() == 0
        wait_until(_are(collect, "worker-offline"), what="the leave")
        events = collect()

    assert next(event["type"] for event in events if event["type"].startswith("worker")) == "worker-online"
    kinds = {id_: [event["type"] for event in events if event.get("uuid") == id_] for id_ in (completed, failed)}
    begun = ["task-received", "task-started"]
    assert kinds == {completed: [*begun, "task-succeeded"], failed: [*begun, "task-failed"]}
    ends = {(event["uuid"], event["type"]): event for event in events if "uuid" in event}
    assert ends[failed, "task-failed"]["exception"] == "invalid_request"
    assert ends[retried, "task-retried"]["exception"] == "upstream_error"
    assert ends[retried, "task-succeeded"]["runtime"] > 0
    assert ends[cancelled, "task-revoked"]["expired"] is True
    assert ends[completed, "task-received"]["name"] == "responses.create"
    assert CANARY not in str(events)


def _are(collect: Callable[[], Heard], kind: str) -> Callable[[], bool]:
    return lambda: any(event["type"] == kind for event in collect())
