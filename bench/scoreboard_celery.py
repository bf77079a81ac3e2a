"""The peer: what every blog recommends, `celery -A bench.scoreboard_celery worker -P threads -c 25`.

One SDK client per process; its own retries are off, as `autoretry_for` takes their place.
"""

import json
import os
from typing import Any, cast

import openai
import redis
from celery import Celery
from celery.signals import worker_ready

app: Any = Celery("peer", broker=os.environ["BENCH_REDIS_URL"])
app.conf.update(task_default_queue="responses.peer", task_ignore_result=True)

_client = openai.OpenAI(base_url=f"{os.environ['BENCH_GATEWAY_URL']}/v1", api_key="sk-bench", max_retries=0)
_redis: Any = redis.Redis.from_url(os.environ["BENCH_REDIS_URL"])  # pyright: ignore[reportUnknownMemberType]  # untyped kwargs


@app.task(
    name="bench.ask",
    acks_late=True,
    autoretry_for=(openai.RateLimitError, openai.APIConnectionError, openai.InternalServerError),
    retry_backoff=True,
    retry_jitter=True,
    max_retries=5,
)
def ask(envelope: dict[str, Any]) -> None:
    response = cast("Any", _client).responses.create(**envelope["body"])
    result = {"request_id": envelope["request_id"], "outcome": response.status}
    _redis.xadd("responses:results", {"result": json.dumps(result)})


@cast("Any", worker_ready).connect
def _ready(**_: Any) -> None:
    print("bench.ready", flush=True)
