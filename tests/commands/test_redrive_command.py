"""`redrive`, as operators use it: count first, then each failed request once more."""

import json
import time

import pytest
from support.command_line import Ran, called
from support.polling import wait_until
from support.producer import Producer, body
from support.worker_process import Fleet

PROMPT = "canary-prompt-5b20"


def test_failed_requests_are_counted_and_run_once_more(fleet: Fleet, producer: Producer, redis_url: str) -> None:
    """The caller gets a second result under the same id; the act is on record; no prompt is shown."""

    def redrive(*options: str) -> Ran:
        return called("redrive", *options, WORKER_REDIS_URL=redis_url)

    fleet.start(requests_per_minute=6000)
    for number in range(3):
        request = {"body": body(f"{PROMPT} {number} [[sim:500*1]]"), "request_id": f"r{number}", "max_attempts": 1}
        producer.enqueue(request | {"tenant": "acme" if number else "globex"})
    failed = [producer.result(f"r{number}") for number in range(3)]
    assert {result["error"]["code"] for result in failed} == {"upstream_error"}

    account = f"responses:usage:{int(time.time()) // 86_400}"
    producer.redis.hset(account, "acme\ngpt-5.4-mini", "10 0 700 0 300 5000000000")
    counted = redrive("--code", "upstream_error", "--dry-run")
    assert counted.out.startswith("3 failed requests, ")
    assert counted.out.splitlines()[0].endswith(" KiB, about 300 tokens, about $1.50")
    assert "3  interactive  upstream_error\n" in counted.out
    assert counted.out.endswith("\nnext: responses-worker redrive --code upstream_error --rate 60/m\n")
    assert redrive("--since", "1h", "--lane", "batch").out == "0 failed requests, 0.0 KiB\n"
    assert len(producer.entries()) == 3

    done = redrive("--tenant", "acme", "--rate", "50/s", "--reason", "gateway is back", "--json")
    wait_until(lambda: len(producer.entries()) == 5, what="answers to what was redriven")

    assert done.code == 0, done.err
    report = json.loads(done.out)
    assert (report["found"], report["redriven"], report["left_alone"]) == (2, 2, 0)
    assert report["by_code"] == {"upstream_error": 2}
    again = producer.entries()[3:]
    assert {(entry["request_id"], entry["outcome"]) for entry in again} == {("r1", "completed"), ("r2", "completed")}
    assert json.loads(redrive("--all", "--dry-run", "--json").out)["found"] == 1
    (act,) = map(json.loads, called("audit", "--json", WORKER_REDIS_URL=redis_url).out.splitlines())
    assert (act["what"], act["why"]) == ("redrive --tenant acme: 2 requests", "gateway is back")
    assert PROMPT not in counted.out + done.out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "give --code, --tenant, --lane or --since, or else --all"),
        (["--all", "--lane", "batch"], "give --code"),
        (["--code", "upstream_eror"], "--code: must be one of"),
        (["--all", "--within", "8d"], "--within: must be at most 7 days"),
        (["--all", "--rate", "50"], "such as 50/m"),
        (["--all", "--rate", "0/m"], "such as 50/m"),
    ],
)
def test_refusals_name_the_option(options: list[str], said: str) -> None:
    refused = called("redrive", *options)

    assert refused.code == 2
    assert said in refused.err
