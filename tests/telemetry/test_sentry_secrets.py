"""Secrets never leave a worker: not in an envelope, not in a line, not in a metric, with every request traced."""

import json
import re
from contextlib import closing
from pathlib import Path
from typing import Final

from support.probe_client import Probe
from support.producer import Producer, body
from support.sentry_fleet import failures
from support.sentry_receiver import SentryReceiver
from support.worker_process import Fleet, WorkerProcess, worker_environment

from worker.devtools.devstack import Simulator

CANARY: Final = "canary-7f3a"


def test_nothing_that_is_content_leaves_anywhere(
    told: Fleet, producer: Producer, receiver: SentryReceiver, gateway: Simulator
) -> None:
    """Canaries in prompt, output, key, metadata and the gateway's own words: in no envelope, line or metric."""
    worker = told.start(max_attempts=1, upstream_api_key=f"sk-{CANARY}", upstream_url=gateway.url)
    probe = Probe.of(worker)
    markers = ("", "400", "500", "html-502", "incomplete", "broken-json", "schema-break", "429-chinese", "filter")
    for marker in markers:
        prompt = f"{CANARY} [[sim:{marker}*1]]" if marker else f"{CANARY} grüße"
        producer.ask(prompt, metadata={"note": CANARY}, lane="batch")
    producer.enqueue({"body": {**body(CANARY), "input": [{"role": CANARY, "content": CANARY}]}})
    producer.enqueue({"body": body(), "metadata": {CANARY: "x" * 600 + CANARY}})
    producer.enqueue({"body": body(CANARY), CANARY: 1, f"Tell {CANARY}!": 2})
    producer.push_raw(b"{broken " + CANARY.encode())
    producer.push_raw(json.dumps({"id": "x-1", "prompt": CANARY}).encode()[:-1])
    producer.results(len(markers) + 4)
    metrics = probe.get("/metrics")[1]
    worker.terminate()
    worker.wait()

    sent = b"\n".join(receiver.raw)
    assert len(receiver.transactions()) >= len(markers)
    assert {event["tags"]["failure_class"] for event in receiver.events()} >= {"upstream_error", "invalid_response"}
    assert CANARY.encode() not in sent
    assert CANARY not in metrics
    # names of keys are told, to help the caller
    log = re.sub(rf'("unknown_keys":\[[^\]]*)"{CANARY}"', r"\1", worker.log)
    assert CANARY not in log


BROKEN: Final = """
from worker import app
from worker.request import processor
from worker.config.settings import load

async def run(self, execution):
    raise ValueError(execution.message.body)

processor.Processor._run = run
app.run(load())
"""


def test_a_bug_is_an_incident_whose_words_stay_here(
    redis_url: str, gateway: Simulator, producer: Producer, receiver: SentryReceiver, tmp_path: Path
) -> None:
    """An exception that quotes the prompt: the caller gets internal_error, on call gets type, place and counts."""
    own = worker_environment(redis_url, gateway.url, SENTRY_DSN=receiver.dsn)
    with closing(WorkerProcess(own, tmp_path / "log", BROKEN)) as worker:
        worker.wait_started()
        for _ in range(5):
            producer.ask(CANARY)
        codes = {result["error"]["code"] for result in producer.results(5)}
        worker.terminate()
        worker.wait()

        assert codes == {"internal_error"}
        assert [line["error_type"] for line in worker.events("request.crashed")] == ["ValueError"] * 5
        assert CANARY not in worker.log
    first, tail = receiver.events()
    assert first["tags"]["failure_class"] == "bug"
    assert first["exception"]["values"][0]["stacktrace"]["frames"][-1]["function"] == "run"
    assert failures([first, tail]) == 5
    assert CANARY.encode() not in b"\n".join(receiver.raw)
