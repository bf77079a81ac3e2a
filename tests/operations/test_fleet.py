"""Two deployments with keys of their own on one Redis: each has its own budget and gate."""

from support.command_line import called
from support.polling import wait_until
from support.producer import Producer
from support.worker_process import Fleet


def test_a_fleet_has_a_budget_and_a_gate_of_its_own(fleet: Fleet, producer: Producer, redis_url: str) -> None:
    """One is paused; the other goes on."""
    called("pause", WORKER_REDIS_URL=redis_url, WORKER_FLEET="blue")
    fleet.start(fleet="blue", lanes="interactive=1")
    fleet.start(fleet="green", lanes="batch=1")
    stands = producer.ask(lane="interactive")

    assert producer.result(producer.ask(lane="batch"))["outcome"] == "completed"
    wait_until(lambda: producer.redis.hlen("responses:inflight:interactive") == 1, what="a request that waits")
    assert len(producer.entries()) == 1
    called("resume", WORKER_REDIS_URL=redis_url, WORKER_FLEET="blue")

    assert producer.result(stands)["outcome"] == "completed"
    quotas = {key.decode() for key in producer.redis.keys("responses:quota:*")}
    assert quotas == {"responses:quota:blue", "responses:quota:green"}


def test_without_a_name_the_keys_are_those_of_the_release_before(fleet: Fleet, producer: Producer) -> None:
    fleet.start()

    assert producer.result(producer.ask())["outcome"] == "completed"
    assert producer.redis.keys("responses:quota:*") == [b"responses:quota:default"]
