"""Options of a batch, lines of other endpoints, its cost, and its output in the OpenAI SDK's own types."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from openai.types.responses import Response
from support.batch_parts import BatchFile, custom_ids
from support.command_line import called
from support.polling import wait_until
from support.producer import body
from support.worker_process import Fleet

from api_contracts.client import ResponsesClient
from worker.operations.batch_files import lines_of
from worker.operations.batches import Batch

PRICES = """
[accounts.default]
[routes.default]
url = "http://127.0.0.1:9"
key_env = "PATH"
account = "default"
[models."gpt-5.4-mini"]
input = 1000.0
output = 2000.0
"""
MESSAGES = {"model": "gpt-5.4-mini", "messages": [{"role": "user", "content": "Hello!"}]}


@pytest.fixture
def file(tmp_path: Path, redis_url: str) -> BatchFile:
    return BatchFile(tmp_path, redis_url)


@pytest.mark.parametrize(
    "line",
    [
        {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": MESSAGES},
        {"custom_id": "a", "url": "/v1/chat/completions", "body": body()},
        {"custom_id": "a", "body": MESSAGES},
    ],
)
def test_requests_of_chat_completions_are_told_apart(file: BatchFile, line: object) -> None:
    file.write({"custom_id": "good", "body": body()}, line)

    good, chat = lines_of(file.source)

    assert good.problem == ""
    assert chat.problem.startswith("line 2 is a request of /v1/chat/completions; write it for /v1/responses")


def test_so_many_wait_or_run_at_a_time(file: BatchFile, fleet: Fleet, valkey: Any) -> None:
    """Of the tenant that was named."""
    file.write_numbered(20)
    with ResponsesClient(file.redis_url, tenant="acme") as client:
        job = Batch(client=client, source=file.source, answers=file.answers, concurrency=3)
        running = threading.Thread(target=job.run)
        running.start()
        wait_until(lambda: valkey.llen("responses.batch") == 3, what="three requests")
        fleet.start()
        running.join(60)

    assert len(custom_ids(file.answers)) == 20
    assert len(valkey.keys("responses:request:acme:*")) == 20


def test_the_summary_tells_the_cost_and_the_sdk_reads_the_output(file: BatchFile, fleet: Fleet, tmp_path: Path) -> None:
    fleet.start()
    file.write_numbered(3)
    config = tmp_path / "routes.toml"
    config.write_text(PRICES)
    settings = {"WORKER_REDIS_URL": file.redis_url, "WORKER_CONFIG_FILE": str(config)}

    ran = called("batch", str(file.source), str(file.answers), "--tenant", "acme", "--concurrency", "2", **settings)

    lines = [json.loads(line) for line in file.answers.read_text(encoding="utf-8").splitlines()]
    answers = [Response.construct(**line["response"]["body"]) for line in lines]  # as the SDK reads every answer
    used = [answer.usage for answer in answers if answer.usage]
    cost = sum(usage.input_tokens * 1000 + usage.output_tokens * 2000 for usage in used) / 1_000_000
    assert ran.code == 0, ran.err
    assert f"; {cost:.4f} USD" in ran.err
    assert [line["response"]["status_code"] for line in lines] == [200] * 3
    assert min(answer.output_text for answer in answers).endswith("Grüße 0")


def test_a_tenant_that_is_none_is_refused(file: BatchFile) -> None:
    file.write_numbered(1)

    ran = called("batch", str(file.source), str(file.answers), "--tenant", "a b", WORKER_REDIS_URL=file.redis_url)

    assert ran.code == 2
    assert ran.err.endswith("--tenant: tenant must match ^[A-Za-z0-9._:-]+$\n")
