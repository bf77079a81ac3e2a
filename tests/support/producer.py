"""A producer that uses plain Celery and redis-py, and the request bodies it sends."""

import json
from collections.abc import Iterable
from typing import Any, Self

import redis
from celery import Celery

from support.polling import wait_until


def body(prompt: str = "Hello!", **more: Any) -> dict[str, Any]:
    """Returns a valid body of `POST /v1/responses`; `more` adds or replaces fields."""
    return {"model": "gpt-5.4-mini", "input": [{"role": "user", "content": prompt}], **more}


class Producer:
    """Enqueues with Celery alone and reads results with redis-py alone, as a service without our code does."""

    def __init__(self, redis_url: str) -> None:
        self.app: Any = Celery("producer", broker=redis_url, set_as_current=False)
        self.app.conf.update(task_ignore_result=True)
        # A message of half a gigabyte takes a busy machine longer than the client's usual 5 s.
        self.redis: Any = redis.Redis.from_url(redis_url, socket_timeout=60)  # pyright: ignore[reportUnknownMemberType]  # untyped kwargs

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.app.close()
        self.redis.close()

    def enqueue(self, envelope: Any, *, lane: str = "interactive", **options: Any) -> str:
        """Returns the Celery task id, which is the request id unless the envelope names one."""
        return self.app.send_task("responses.create", args=[envelope], queue=f"responses.{lane}", **options).id

    def ask(self, prompt: str = "Hello!", *, lane: str = "interactive", **envelope: Any) -> str:
        return self.enqueue({"body": body(prompt), **envelope}, lane=lane)

    def push_raw(self, message: bytes, *, lane: str = "interactive") -> None:
        self.redis.lpush(f"responses.{lane}", message)

    def entries(self, stream: str = "responses:results") -> list[dict[str, Any]]:
        """Returns every result on a stream, decoded."""
        return [json.loads(fields[b"result"]) for _, fields in self.redis.xrange(stream)]

    def results(self, count: int, *, within_s: float = 20.0, stream: str = "responses:results") -> list[dict[str, Any]]:
        wait_until(lambda: self.redis.xlen(stream) >= count, within_s=within_s, what=f"{count} results on {stream}")
        return self.entries(stream)

    def result(self, request_id: str, *, within_s: float = 20.0) -> dict[str, Any]:
        """Returns the only result of one request."""

        def found() -> list[dict[str, Any]]:
            return [entry for entry in self.entries() if entry["request_id"] == request_id]

        wait_until(found, within_s=within_s, what=f"a result for {request_id}")
        (result,) = found()
        return result

    def leftovers(self, lanes: Iterable[str] = ("interactive", "batch")) -> dict[str, int]:
        """Returns the size of each key that holds unfinished work; empty when every request is answered."""
        sizes = {f"responses.{lane}": self.redis.llen(f"responses.{lane}") for lane in lanes}
        for lane in lanes:
            sizes[f"inflight:{lane}"] = self.redis.hlen(f"responses:inflight:{lane}")
            sizes[f"leases:{lane}"] = self.redis.zcard(f"responses:leases:{lane}")
            sizes[f"parked:{lane}"] = self.redis.hlen(f"responses:parked:{lane}")
            sizes[f"delayed:{lane}"] = self.redis.zcard(f"responses:delayed:{lane}")
        sizes["permits"] = self.redis.zcard("responses:permits:default")
        return {name: size for name, size in sizes.items() if size}
