"""`show` and `cancel`: one request by its id, wherever it is; its prompt only where it is asked for."""

import json
from typing import Any

import pytest
from support.command_line import called
from support.polling import wait_until
from support.producer import Producer
from support.worker_process import Fleet

SECRET = "canary-prompt-7c1e"


def shown(redis_url: str, request_id: str, *options: str) -> dict[str, Any]:
    ran = called("show", request_id, "--json", *options, WORKER_REDIS_URL=redis_url)
    assert ran.code == 0, ran.err
    return json.loads(ran.out)


def test_a_request_that_nobody_took_yet_is_found_in_its_lane(producer: Producer, redis_url: str) -> None:
    """With its place, and the reason why it is not taken."""
    for number in range(120):
        producer.ask(lane="batch", request_id=f"other-{number}")
    producer.ask(SECRET, lane="batch", request_id="order-17", tenant="acme")
    producer.enqueue({"body": {}, "request_id": "urgent"}, lane="batch", priority=0)

    found = shown(redis_url, "order-17")
    assert (found["state"], found["lane"], found["tenant"], found["position"]) == ("queued", "batch", "acme", 120)
    assert "no worker is alive" in found["summary"]
    assert SECRET not in json.dumps(found)
    assert (
        SECRET in json.dumps(shown(redis_url, "order-17", "--body"))
        or "body" in shown(redis_url, "order-17", "--body")["message"]
    )
    assert called("show", "order-17", "--tenant", "globex", WORKER_REDIS_URL=redis_url).code == 1


def test_a_request_is_followed_to_its_end(fleet: Fleet, producer: Producer, redis_url: str) -> None:
    """Called, parked, answered; attempts and the answer's head are shown, and no text of the model."""
    fleet.start()
    producer.ask(f"{SECRET} [[sim:slow=20]]", request_id="slow", tenant="acme")
    wait_until(lambda: shown(redis_url, "slow")["state"] == "calling", what="a call")
    assert shown(redis_url, "slow")["attempts"][0]["outcome"] == "started"
    later = producer.enqueue(
        {"body": {"model": "gpt-5.4-mini", "input": [{"role": "user", "content": SECRET}]}}, countdown=60
    )
    wait_until(lambda: shown(redis_url, later)["state"] == "parked", what="a parked request")
    assert 50_000 < shown(redis_url, later)["starts_in_ms"] < 61_000

    cancelled = called("cancel", "slow", "--reason", "a mistake", WORKER_REDIS_URL=redis_url)
    assert (cancelled.code, "responses-worker show slow" in cancelled.out) == (0, True)
    wait_until(lambda: shown(redis_url, "slow")["state"] == "failed", what="its answer")
    ended = shown(redis_url, "slow")
    assert (ended["answer"]["code"], ended["tenant"]) == ("cancelled", "acme")

    producer.ask(SECRET, request_id="quick")
    producer.result("quick")
    text = called("show", "quick", WORKER_REDIS_URL=redis_url).out
    assert "completed in lane interactive" in text
    assert "input_tokens" in text
    assert "output_text" not in text
    assert "output_text" in called("show", "quick", "--body", WORKER_REDIS_URL=redis_url).out
    assert called("cancel", "quick", WORKER_REDIS_URL=redis_url).code == 1


def test_an_id_of_several_tenants_needs_a_tenant_to_be_cancelled(producer: Producer, redis_url: str) -> None:
    for tenant in ("acme", "globex"):
        producer.redis.hset(f"responses:request:{tenant}:r", mapping={"state": "queued", "lane": "batch"})

    refused = called("cancel", "r", WORKER_REDIS_URL=redis_url)
    assert (refused.code, "acme, globex" in refused.err) == (2, True)
    assert called("cancel", "r", "--tenant", "globex", WORKER_REDIS_URL=redis_url).code == 0
    assert producer.redis.exists("responses:cancel:globex:r")


@pytest.mark.parametrize("command", ["show", "cancel"])
def test_a_name_that_is_no_id_is_refused(redis_url: str, command: str) -> None:
    assert called(command, "a*", WORKER_REDIS_URL=redis_url).code == 2


def test_what_nobody_knows_is_said_so(redis_url: str) -> None:
    ran = called("show", "nothing", WORKER_REDIS_URL=redis_url)

    assert (ran.code, "dead list" in ran.err) == (1, True)


def test_the_version_is_printed() -> None:
    from worker import __version__  # noqa: PLC0415  # what the command must print

    assert called("--version").out == f"{__version__}\n"
