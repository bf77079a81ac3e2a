"""`responses-worker results`: what is printed, what is acknowledged, what reaches the terminal."""

import json
import signal
from typing import Any

import pytest
import redis
from support.command_line import called, next_line, started

from worker.commands.printable import one_line, shown


def test_results_shows_one_line_each_or_json(valkey: redis.Redis, redis_url: str) -> None:
    _publish(valkey, "elsewhere")
    _publish(valkey, "here", stream="responses:results:shop", text="Line one\nline two")
    asked = ("results", "--reply-to", "shop")

    (line,) = called(*asked, WORKER_REDIS_URL=redis_url).out.splitlines()
    (row,) = called(*asked, "--json", WORKER_REDIS_URL=redis_url).out.splitlines()

    assert line.split(maxsplit=4) == ["completed", "0.0", "s", "here", "Line one line two"]
    assert json.loads(row)["request_id"] == "here"


def test_a_group_gets_each_result_once_acknowledged_when_printed(valkey: redis.Redis, redis_url: str) -> None:
    _publish(valkey, "one", "two")
    asked = ("results", "--group", "shop")

    first = called(*asked, WORKER_REDIS_URL=redis_url)
    _publish(valkey, "three")
    second = called(*asked, WORKER_REDIS_URL=redis_url)

    assert [line.split()[3] for line in first.out.splitlines()] == ["one", "two"]
    assert [line.split()[3] for line in second.out.splitlines()] == ["three"]
    assert _pending(valkey) == 0


def test_a_group_gets_again_what_was_not_acknowledged(valkey: redis.Redis, redis_url: str) -> None:
    _publish(valkey, "one")
    asked = ("results", "--group", "shop", "--json")
    called(*asked, WORKER_REDIS_URL=redis_url)
    _publish(valkey, "two")
    (consumer,) = valkey.xinfo_consumers("responses:results", "shop")
    valkey.xreadgroup("shop", consumer["name"], {"responses:results": ">"})  # and it dies before printing

    again = called(*asked, WORKER_REDIS_URL=redis_url)

    assert json.loads(again.out)["request_id"] == "two"
    assert _pending(valkey) == 0


def test_following_prints_what_arrives_and_ends_with_ctrl_c(valkey: redis.Redis, redis_url: str) -> None:
    with started("-m", "worker", "results", "--follow", "--json", WORKER_REDIS_URL=redis_url) as process:
        for request_id in ("one", "two"):
            _publish(valkey, request_id)
            assert json.loads(next_line(process))["request_id"] == request_id
        process.send_signal(signal.SIGINT)

        assert process.wait(10) == 0
        assert process.stderr
        assert process.stderr.read() == ""


def test_what_is_no_result_is_named_and_does_not_block_a_group(valkey: redis.Redis, redis_url: str) -> None:
    valkey.xadd("responses:results", {"result": "{}"})
    _publish(valkey, "good")

    ran = called("results", "--group", "shop", WORKER_REDIS_URL=redis_url)

    assert ran.code == 0
    assert "contract_version is required" in ran.err
    assert ran.out.split()[3] == "good"
    assert _pending(valkey) == 0


def test_results_of_one_code_are_picked_out(valkey: redis.Redis, redis_url: str) -> None:
    """An entry that is no result has no code. A group must read all of its results."""
    valkey.xadd("responses:results", {"result": "no JSON"})
    valkey.xadd("responses:results", {"result": "[]"})
    _publish(valkey, "well")
    _publish(valkey, "ill", error={"code": "upstream_error", "message": "no", "retryable": True})
    asked = ("results", "--code", "upstream_error")

    (row,) = called(*asked, "--json", WORKER_REDIS_URL=redis_url).out.splitlines()
    assert json.loads(row)["request_id"] == "ill"
    assert called("results", "--code", "poison", WORKER_REDIS_URL=redis_url).err.startswith("--code: must be one of")
    refused = called(*asked, "--group", "shop", WORKER_REDIS_URL=redis_url)
    assert (refused.code, refused.err[:7]) == (2, "--code:")


def test_a_group_that_nobody_needs_is_dropped_on_record(valkey: redis.Redis, redis_url: str) -> None:
    _publish(valkey, "one", "two")
    valkey.xgroup_create("responses:results", "shop", id="0")
    unknown = called("results", "--drop-group", "shp", WORKER_REDIS_URL=redis_url)
    assert (unknown.code, unknown.err) == (2, "--drop-group: responses:results has no group shp; it has shop\n")

    done = called("results", "--drop-group", "shop", WORKER_REDIS_URL=redis_url)

    assert done.out == "dropped shop, which had not read 2 results of responses:results\n"
    assert valkey.xinfo_groups("responses:results") == []
    assert valkey.xlen("responses:results") == 2
    (act,) = map(json.loads, called("audit", "--json", WORKER_REDIS_URL=redis_url).out.splitlines())
    assert act["what"] == "results --drop-group shop of responses:results: 2 unread"


def test_what_redis_cannot_count_is_not_called_read(valkey: Any, redis_url: str) -> None:
    """It knows no lag of a group that was made in the midst of its stream."""
    _publish(valkey, "one", "two", "three")
    _, (middle, _), _ = valkey.xrange("responses:results")
    valkey.xgroup_create("responses:results", "shop", id=middle)

    done = called("results", "--drop-group", "shop", WORKER_REDIS_URL=redis_url)

    assert done.out == "dropped shop, which had not read an unknown number of results of responses:results\n"


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("Grüße 世界 👩‍🚀\n\tok", "Grüße 世界 👩‍🚀\n\tok"),
        ("\x1b[31mred\x1b[0m \x07\x9b2J", "[31mred[0m 2J"),
        ("user\u202etxt.exe", "usertxt.exe"),
    ],
)
def test_a_text_cannot_take_over_the_terminal(text: str, seen: str) -> None:
    assert shown(text) == seen


def test_a_snippet_is_one_short_line() -> None:
    assert one_line("  one\n\n two\tthree ") == "one two three"
    assert len(one_line("x" * 10_000)) == 200


def _publish(
    valkey: redis.Redis,
    *request_ids: str,
    stream: str = "responses:results",
    text: str = "An answer",
    error: dict[str, Any] | None = None,
) -> None:
    at = "2026-01-31T09:30:00.000Z"
    spent = dict.fromkeys(("queue_ms", "throttle_ms", "upstream_ms", "total_ms"), 1)
    when = {"enqueued_at": at, "claimed_at": at, "finished_at": at, "enqueued_at_source": "worker"}
    message = {"type": "message", "content": [{"type": "output_text", "text": text}]}
    for request_id in request_ids:
        result: dict[str, Any] = {
            "contract_version": "1.0",
            "request_id": request_id,
            "tenant": "default",
            "lane": "interactive",
            "outcome": "failed" if error else "completed",
            "response": None if error else {"status": "completed", "output": [message]},
            "error": error,
            "timing": when | spent,
        }
        valkey.xadd(stream, {"request_id": request_id, "result": json.dumps(result)})


def _pending(valkey: redis.Redis) -> int:
    summary: Any = valkey.xpending("responses:results", "shop")
    return summary["pending"]
