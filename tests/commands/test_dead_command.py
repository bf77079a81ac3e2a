"""`responses-worker dead`, as operators use it."""

import json
from typing import Any

import pytest
import redis
from support.command_line import Ran, called, started
from support.dead_letters import PROMPT, bury, celery_message
from support.polling import wait_until
from support.producer import Producer


def dead(*arguments: str, redis_url: str, stdin: str = "") -> Ran:
    return called("dead", *arguments, stdin=stdin, WORKER_REDIS_URL=redis_url)


def test_list_shows_facts_and_no_content(valkey: redis.Redis, redis_url: str) -> None:
    older = bury(valkey, request_id="order-1", tenant="acme", message=PROMPT.encode())
    newer = bury(valkey, reason="not a JSON object\u202e", message=PROMPT.encode() * 100)

    shown = dead("list", redis_url=redis_url)
    one = dead("list", "--limit", "1", redis_url=redis_url)
    rows = dead("list", "--json", "--tenant", "acme", redis_url=redis_url)

    assert shown.code == one.code == rows.code == 0
    assert shown.out.index(newer) < shown.out.index(older)
    assert "order-1" in shown.out
    assert "poison" in shown.out
    assert "not a JSON object \n" in shown.out
    assert "\u202e" not in shown.out
    assert "2 shown of 2 dead letters\n" in shown.out
    assert "1 shown of 2 dead letters; --limit shows more" in one.out
    assert [json.loads(row)["id"] for row in rows.out.splitlines()] == [older]
    assert PROMPT not in shown.out + one.out + rows.out


def test_show_prints_the_message_only_when_asked(producer: Producer, redis_url: str) -> None:
    """It holds a prompt; what is known of it does not."""
    message = celery_message(producer, expires=-60)
    entry_id = bury(producer.redis, request_id="order-1", tenant="default", message=message)
    producer.redis.hset("responses:request:default:order-1", "state", "failed")

    facts = dead("show", entry_id, redis_url=redis_url)
    as_json = json.loads(dead("show", entry_id, "--json", redis_url=redis_url).out)
    content = dead("show", entry_id, "--content", redis_url=redis_url)
    both = json.loads(dead("show", entry_id, "--content", "--json", redis_url=redis_url).out)

    assert as_json["request_id"] == "order-1"
    assert as_json["task_id"] == json.loads(message)["headers"]["id"]
    assert (as_json["state"], as_json["expired"], as_json["problem"]) == ("failed", True, None)
    assert "message" not in as_json
    assert "canary" not in facts.out
    assert content.out.endswith(f"\n\n{message.decode()}\n")
    assert both["message"].encode() == message


def test_show_says_what_is_wrong_with_a_message(producer: Producer, redis_url: str) -> None:
    unreadable = bury(producer.redis, message=b"\xff" + PROMPT.encode())
    message = json.loads(celery_message(producer))
    message["headers"]["task"] = "another"
    foreign = bury(producer.redis, message=json.dumps(message))

    assert "no id can be read" in dead("show", unreadable, redis_url=redis_url).out
    assert "headers.task: must be responses.create" in dead("show", foreign, redis_url=redis_url).out
    assert dead("show", "1-1", redis_url=redis_url).code == 1


def test_all_needs_a_yes(valkey: redis.Redis, redis_url: str) -> None:
    """Without a terminal to ask on, nothing happens; ids are their own confirmation."""
    first, second, _ = (bury(valkey) for _ in range(3))

    refused = dead("drop", "--all", redis_url=redis_url)
    declined = dead("drop", "--all", redis_url=redis_url, stdin="n\n")
    assert (refused.code, declined.code, valkey.xlen("responses:dead")) == (1, 1, 3)
    assert "Drop 3 dead letters?" in declined.err

    assert dead("drop", first, second, first, redis_url=redis_url).out == "2 dropped, 1 not there any more\n"
    assert dead("drop", "--all", redis_url=redis_url, stdin="y\n").code == 0
    assert valkey.xlen("responses:dead") == 0
    assert valkey.llen("responses.interactive") == 0


def test_replay_says_what_it_left_and_why(valkey: redis.Redis, redis_url: str) -> None:
    """Exit 1 where a letter was kept; what is gone already is no failure, so that a replay can be repeated."""
    valkey.hset("responses:request:default:order-1", "state", "completed")
    answered = bury(valkey, request_id="order-1", tenant="default")
    plain = bury(valkey)

    ran = dead("replay", answered, plain, redis_url=redis_url)
    again = dead("replay", plain, redis_url=redis_url)

    assert (ran.code, ran.out) == (1, "1 replayed, 0 not there any more\n")
    assert ran.err == f"{answered}: kept, its id was enqueued again and has its answer: drop it\n"
    assert (again.code, again.out) == (0, "0 replayed, 1 not there any more\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ("replay",),
        ("drop",),
        ("drop", "1-1", "--all"),
        ("drop", "1-1", "--lane", "batch"),
        ("replay", "order-1"),
        ("show", "+"),
        ("replay", "--all", "--within", "8d", "--yes"),
        ("list", "--older-than", "soon"),
    ],
)
def test_unclear_orders_are_refused(valkey: redis.Redis, redis_url: str, arguments: tuple[str, ...]) -> None:
    """Ids or --all, never both or neither; and nothing that is no id."""
    bury(valkey)

    assert dead(*arguments, redis_url=redis_url).code == 2
    assert valkey.xlen("responses:dead") == 1


def test_a_replay_that_was_killed_is_repeated(valkey: Any, redis_url: str) -> None:
    """Each message is on its lane once, whatever was sent before the kill."""
    with valkey.pipeline(transaction=False) as batch:
        for n in range(2000):
            batch.xadd("responses:dead", {"lane": "batch", "reason": "poison", "message": f"m{n}"})
        batch.execute()

    with started("-m", "worker", "dead", "replay", "--all", "--yes", WORKER_REDIS_URL=redis_url) as replay:
        wait_until(lambda: valkey.xlen("responses:dead") < 2000, what="the first replayed letter")
        replay.kill()
    left = valkey.xlen("responses:dead")
    again = dead("replay", "--all", "--yes", redis_url=redis_url)

    assert 0 < left < 2000
    assert (again.code, again.out) == (0, f"{left} replayed, 0 not there any more\n")
    assert valkey.lrange("responses.batch", 0, -1) == [b"m%d" % n for n in range(1999, -1, -1)]
