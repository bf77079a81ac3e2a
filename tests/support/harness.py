"""What tests need around the worker: processes with real signals, a plain Celery producer, a stream reader."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self, TypeVar

import redis
from celery import Celery

T = TypeVar("T")


def wait_until(check: Callable[[], T], *, within_s: float = 10.0, what: str = "") -> T:
    """The first truthy value of `check`; fails, saying what was waited for, when there is none in time."""
    give_up = time.monotonic() + within_s
    while True:
        value = check()
        if value:
            return value
        if time.monotonic() > give_up:
            raise AssertionError(f"not within {within_s} s: {what or check}")
        time.sleep(0.02)


def body(prompt: str = "Hello!", **more: Any) -> dict[str, Any]:
    return {"model": "gpt-5.4-mini", "input": [{"role": "user", "content": prompt}], **more}


class Producer:
    """A service that enqueues with nothing but Celery, and reads results with nothing but redis-py."""

    def __init__(self, redis_url: str) -> None:
        self.app: Any = Celery("producer", broker=redis_url, set_as_current=False)
        self.app.conf.update(task_ignore_result=True)
        self.redis: Any = redis.Redis.from_url(redis_url)  # pyright: ignore[reportUnknownMemberType]  # untyped kwargs

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.app.close()
        self.redis.close()

    def enqueue(self, envelope: Any, *, lane: str = "interactive", **options: Any) -> str:
        """The Celery task id, which is the request id where the envelope names none."""
        return self.app.send_task("responses.create", args=[envelope], queue=f"responses.{lane}", **options).id

    def ask(self, prompt: str = "Hello!", *, lane: str = "interactive", **envelope: Any) -> str:
        return self.enqueue({"body": body(prompt), **envelope}, lane=lane)

    def push_raw(self, message: bytes, *, lane: str = "interactive") -> None:
        self.redis.lpush(f"responses.{lane}", message)

    def entries(self, stream: str = "responses:results") -> list[dict[str, Any]]:
        """Every result on a stream, decoded."""
        return [json.loads(fields[b"result"]) for _, fields in self.redis.xrange(stream)]

    def results(self, count: int, *, within_s: float = 20.0, stream: str = "responses:results") -> list[dict[str, Any]]:
        wait_until(lambda: self.redis.xlen(stream) >= count, within_s=within_s, what=f"{count} results on {stream}")
        return self.entries(stream)

    def result(self, request_id: str, *, within_s: float = 20.0) -> dict[str, Any]:
        """The one result of one request."""

        def found() -> list[dict[str, Any]]:
            return [entry for entry in self.entries() if entry["request_id"] == request_id]

        wait_until(found, within_s=within_s, what=f"a result for {request_id}")
        (result,) = found()
        return result

    def leftovers(self, lanes: Iterable[str] = ("interactive", "batch")) -> dict[str, int]:
        """What still lies anywhere between lane and answer; empty when all is answered."""
        sizes = {f"responses.{lane}": self.redis.llen(f"responses.{lane}") for lane in lanes}
        for lane in lanes:
            sizes[f"inflight:{lane}"] = self.redis.hlen(f"responses:inflight:{lane}")
            sizes[f"leases:{lane}"] = self.redis.zcard(f"responses:leases:{lane}")
            sizes[f"parked:{lane}"] = self.redis.hlen(f"responses:parked:{lane}")
            sizes[f"delayed:{lane}"] = self.redis.zcard(f"responses:delayed:{lane}")
        sizes["permits"] = self.redis.zcard("responses:permits:default")
        return {name: size for name, size in sizes.items() if size}


class WorkerProcess:
    """`responses-worker run` in a process of its own; its log is kept."""

    def __init__(self, environment: dict[str, str], log: Path) -> None:
        self.log_path = log
        self._log = log.open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "worker", "run"], env=environment, stdout=self._log, stderr=self._log
        )

    @property
    def log(self) -> str:
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def events(self, name: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.log.splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == name]

    def wait_started(self) -> Self:
        def settled() -> bool:
            return "worker.started" in self.log or self.process.poll() is not None

        wait_until(settled, within_s=30, what="a started worker")
        assert self.process.poll() is None, self.log
        return self

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def wait(self, within_s: float = 20.0) -> int:
        return self.process.wait(within_s)

    def close(self) -> None:
        if self.process.poll() is None:
            self.kill()
        self._log.close()


class Fleet:
    """Worker processes that share one Redis and one gateway."""

    def __init__(self, redis_url: str, upstream_url: str) -> None:
        self._stack = ExitStack()
        self._logs = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("WORKER_")},
            "WORKER_REDIS_URL": redis_url,
            "WORKER_UPSTREAM_URL": upstream_url,
            "WORKER_UPSTREAM_API_KEY": "sk-test-key",
            "WORKER_REQUESTS_PER_MINUTE": "60000",  # a known limit; tests of learning take it away
            "WORKER_HTTP_PORT": "0",
            "WORKER_LOG_FORMAT": "json",
            "PYTHONUNBUFFERED": "1",
        }
        self.workers: list[WorkerProcess] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers:
            worker.close()
        self._stack.close()

    def start(self, **settings: str | int) -> WorkerProcess:
        """A worker that takes work; settings by name without their prefix, as in `lanes="batch=1"`."""
        own = {f"WORKER_{name.upper()}": str(value) for name, value in settings.items()}
        worker = WorkerProcess(self._environment | own, self._logs / f"{len(self.workers)}.log")
        self.workers.append(worker)
        return worker.wait_started()
