"""A service in Node asks and reads: the examples, against a real worker."""

import subprocess

import kits
from support.producer import Producer
from support.worker_process import Fleet

REQUESTS = 100


def test_a_hundred_requests_from_node_are_answered_to_node(fleet: Fleet, producer: Producer, redis_url: str) -> None:
    fleet.start()

    enqueued = _node("producer.js", redis_url)
    answers = _node("consumer.js", redis_url)

    asked = [line.removeprefix("enqueued ") for line in enqueued]
    expected = [
        f'{task_id} completed {{"number":"{number}"}} Echo: Grüße aus Node, {number}!'
        for number, task_id in enumerate(asked, 1)
    ]
    assert len(asked) == REQUESTS
    assert sorted(answers) == sorted(expected)
    assert producer.leftovers() == {}
    assert producer.redis.xpending("responses:results", "node-shop")["pending"] == 0


def _node(script: str, redis_url: str) -> list[str]:
    """Its lines, once it has ended by itself."""
    command = [*kits.command("node", script), str(REQUESTS)]
    environment = kits.environment("node", WORKER_REDIS_URL=redis_url)
    return subprocess.check_output(command, env=environment, text=True, timeout=60).splitlines()
