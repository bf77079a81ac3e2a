"""The examples do what they say, against a real worker."""

import json
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import redis
from support.command_line import ROOT, environment, next_line, started
from support.polling import wait_until
from support.producer import Producer
from support.worker_process import Fleet

from api_contracts import ContractViolation, GenerationRequest

EXAMPLES = ROOT / "examples"


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.json")), ids=lambda file: file.stem)
def test_an_example_is_what_its_name_says(file: Path) -> None:
    """Each names itself as its request id, and all but one keep the contract."""
    envelope = json.loads(file.read_bytes())

    assert envelope["request_id"] == file.stem
    if file.stem == "invalid":
        with pytest.raises(ContractViolation):
            GenerationRequest.parse(envelope)
    else:
        assert GenerationRequest.parse(envelope).unknown_keys == ()


def test_the_producers_request_reaches_the_consumer(fleet: Fleet, redis_url: str) -> None:
    fleet.start()

    with _consumer(redis_url) as consumer:
        enqueued = _python("producer.py", "Grüße,", "世界!", redis_url=redis_url)
        line = next_line(consumer)

        answered = _python("ask.py", "A", "story", redis_url=redis_url)

    assert answered == "Echo: A story\n"
    assert enqueued == f"enqueued {line.split()[0]}\n"
    assert line.endswith("{'order': '17'} Echo: Grüße, 世界!\n")


def test_the_consumer_acknowledges_and_takes_over_from_one_that_died(
    fleet: Fleet, producer: Producer, valkey: redis.Redis, redis_url: str
) -> None:
    fleet.start()
    valkey.xgroup_create("responses:results", "shop", id="0", mkstream=True)
    producer.ask("Left behind [[sim:filter]]", request_id="left-behind")
    producer.results(1)
    taken: Any = valkey.xreadgroup("shop", "dead", {"responses:results": ">"})
    ((entry_id, _),) = taken[0][1]
    valkey.xclaim("responses:results", "shop", "dead", 0, [entry_id], idle=120_000)

    with _consumer(redis_url) as consumer:
        line = next_line(consumer)
        wait_until(lambda: _pending(valkey) == 0, what="an acknowledgement")

    assert line.startswith("left-behind {} content_rejected ")


def _python(script: str, *arguments: str, redis_url: str) -> str:
    command = [sys.executable, str(EXAMPLES / script), *arguments]
    return subprocess.check_output(command, env=environment(WORKER_REDIS_URL=redis_url), text=True, timeout=20)


def _consumer(redis_url: str) -> "AbstractContextManager[subprocess.Popen[str]]":
    return started(str(EXAMPLES / "consumer.py"), WORKER_REDIS_URL=redis_url)


def _pending(valkey: redis.Redis) -> int:
    summary: Any = valkey.xpending("responses:results", "shop")
    return summary["pending"]
