"""The peer of the comparison: Celery as people use it, `celery -A bench.throughput_celery worker`.

`noop` is Celery's own cost of a task. `ask` is the usual first version of this service: one client per
process, one blocking call, the result onto a stream, acknowledged late.
"""

import os
from typing import Any, cast

import httpx
import redis
from celery import Celery
from celery.signals import worker_ready

QUEUE = "bench"
RESULTS = "bench:results"

app: Any = Celery("bench", broker=os.environ["BENCH_REDIS_URL"])
app.conf.update(task_default_queue=QUEUE, task_ignore_result=True)

_gateway = httpx.Client(
    base_url=os.environ["BENCH_GATEWAY_URL"], timeout=60, headers={"authorization": "Bearer sk-bench"}
)
_redis: Any = redis.Redis.from_url(os.environ["BENCH_REDIS_URL"])  # pyright: ignore[reportUnknownMemberType]  # untyped kwargs


@app.task(name="bench.noop")
def noop(_: dict[str, Any]) -> None:
    pass


@app.task(name="bench.ask", acks_late=True, bind=True)
def ask(self: Any, envelope: dict[str, Any]) -> None:
    response = _gateway.post("/v1/responses", json=envelope["body"])
    response.raise_for_status()
    _redis.xadd(RESULTS, {"request_id": self.request.id, "outcome": "completed", "result": response.content})


@cast("Any", worker_ready).connect
def _ready(**_: Any) -> None:
    print("bench.ready", flush=True)
