"""The tasks of the worker: a second one beside `responses.create`, and a call without a worker."""

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.polling import wait_until
from support.producer import Producer, body
from support.worker_process import WorkerProcess, worker_environment

from worker.config.settings import load
from worker.devtools.devstack import Simulator
from worker.runtime.celery_app import create_app

SECOND_TASK = """
import json
from celery.signals import task_failure, task_prerun, task_retry, task_revoked, task_success
from worker import app, tasks
from worker.config.settings import load
from worker.request.processor import Disposition

async def embed(processor, execution):
    await processor.ledger.bury(execution.delivery, "embedded")
    return Disposition.DEAD_LETTERED

def heard(name):
    def receive(sender, task_id=None, request=None, **arguments):
        shown = {key: str(value) for key, value in arguments.items() if key not in ("signal", "einfo", "traceback")}
        line = {**shown, "event": name, "task": sender.name, "id": task_id or (request and request.id)}
        print(json.dumps(line), flush=True)
    return receive

for signal in (task_prerun, task_success, task_failure, task_retry, task_revoked):
    signal.connect(heard(signal.name), weak=False)
tasks.TASKS["embeddings.create"] = embed
app.run(load())
"""


@pytest.fixture
def app(redis_url: str) -> Any:
    return create_app(load(redis_url=redis_url, upstream_api_key="k"))


def test_a_second_task_is_one_coroutine_and_one_registration(
    redis_url: str, gateway: Simulator, producer: Producer, tmp_path: Path
) -> None:
    """Its messages run its coroutine, on the same lanes; Celery's signals name each task, and hold no prompt."""
    own = worker_environment(redis_url, gateway.url, WORKER_MAX_ATTEMPTS="2")
    with closing(WorkerProcess(own, tmp_path / "log", SECOND_TASK)) as worker:
        worker.wait_started()
        inspect = producer.app.control.inspect(timeout=1)
        registered = wait_until(inspect.registered, what="remote control")
        second = producer.app.send_task("embeddings.create", args=[{"input": "x"}], queue="responses.interactive").id
        unknown = producer.app.send_task("nothing.create", args=[{}], queue="responses.interactive").id
        good = producer.ask("a canary prompt")
        bad = producer.ask("a canary prompt [[sim:400]]")
        again = producer.ask("a canary prompt [[sim:500]]")
        cut = producer.ask("a canary prompt [[sim:slow=30]]")
        late = producer.enqueue({"body": body("a canary prompt")}, expires=-1)
        wait_until(lambda: len(gateway.calls()) == 5, what="all calls, one of them in flight")
        producer.app.control.revoke(cut)
        producer.results(6)
        wait_until(lambda: producer.redis.xlen("responses:dead") == 1, what="the second task's end")
        wait_until(lambda: len(worker.events("task_failure")) == 4, what="all signals")

        def of(signal: str) -> set[tuple[str, str]]:
            return {(line["id"], line["task"]) for line in worker.events(signal)}

        (tasks,) = registered.values()
        assert tasks == ["embeddings.create", "responses.create"]
        assert (second, "embeddings.create") in of("task_prerun")
        assert of("task_failure") == {
            (second, "embeddings.create"),
            (unknown, "responses.create"),
            (bad, "responses.create"),
            (again, "responses.create"),
        }
        assert [line["result"] for line in worker.events("task_success")] == ["completed"]
        assert of("task_retry") == {(again, "responses.create")}
        revoked = {line["id"]: (line["terminated"], line["expired"]) for line in worker.events("task_revoked")}
        assert revoked == {late: ("False", "True"), cut: ("True", "False")}
        assert good in {result["request_id"] for result in producer.entries() if result["outcome"] == "completed"}
        refused = producer.result(unknown)["error"]["message"]
        assert "embeddings.create or responses.create" in refused
        assert "canary" not in worker.log


def test_delay_enqueues(app: Any, producer: Producer) -> None:
    """On the default lane; a wrong number of arguments is the caller's mistake at once."""
    task = app.tasks["responses.create"]
    task.delay({"body": body()})

    assert producer.redis.llen("responses.interactive") == 1
    with pytest.raises(TypeError):
        task.delay()
    with pytest.raises(TypeError):
        task.delay({}, {})


def test_a_call_without_a_worker_says_what_to_do(app: Any) -> None:
    """Whether it is called or applied."""
    task = app.tasks["responses.create"]

    with pytest.raises(TypeError, match=r"enqueue it with responses\.create\.delay"):
        task({"body": body()})
    with pytest.raises(TypeError, match=r"enqueue it with responses\.create\.delay"):
        task.apply([{"body": body()}], throw=True)
