"""Load for the throughput bench: Celery messages in, results out, so many of them outstanding at any time."""

import json
import time
import uuid
from dataclasses import dataclass, field
from typing import Any, Self

import redis
from celery import Celery

_ID = str(uuid.UUID(int=0))
_READ_AT_ONCE = 500
_STALLED_S = 60.0


@dataclass(frozen=True, slots=True)
class Template:
    """One message as Celery itself writes it, to be sent many times under other ids."""

    queue: str
    raw: bytes

    @classmethod
    def captured(cls, redis_url: str, *, task: str, queue: str, envelope: dict[str, Any]) -> Self:
        """Sends it through Celery once and takes it back from its list, which must be empty."""
        app: Any = Celery("producer", broker=redis_url, set_as_current=False)
        app.send_task(task, args=[envelope], queue=queue, task_id=_ID)
        app.close()
        client: Any = redis.Redis.from_url(redis_url)  # pyright: ignore[reportUnknownMemberType]  # untyped kwargs
        raw: bytes = client.rpop(queue)
        client.close()
        tag: str = json.loads(raw)["properties"]["delivery_tag"]
        return cls(queue, raw.replace(tag.encode(), _ID.encode()))

    def under(self, task_id: str) -> bytes:
        return self.raw.replace(_ID.encode(), task_id.encode())


@dataclass(slots=True)
class Load:
    """Enqueues through one template and knows of each request how long its result took."""

    client: Any
    template: Template
    stream: str
    _enqueued_ms: dict[bytes, float] = field(default_factory=dict[bytes, float])
    _read_to: bytes | str = "0"

    def enqueue(self, count: int) -> None:
        if not count:
            return
        ids = [str(uuid.uuid4()) for _ in range(count)]
        now_ms = time.time() * 1000
        self._enqueued_ms |= {task_id.encode(): now_ms for task_id in ids}
        self.client.lpush(self.template.queue, *(self.template.under(task_id) for task_id in ids))

    def collect(self, block_ms: int = 20) -> list[float]:
        """Total times, in ms, of the results that came; a result's time is its entry id, by the server's clock."""
        latencies: list[float] = []
        for _, entries in self._read(block_ms):
            for entry_id, fields in entries:
                if fields[b"outcome"] != b"completed":
                    raise RuntimeError(f"a request ended as {fields[b'outcome'].decode()}: this is no clean run")
                enqueued_ms = self._enqueued_ms.pop(fields[b"request_id"])
                latencies.append(int(entry_id.partition(b"-")[0]) - enqueued_ms)
                self._read_to = entry_id
        return latencies

    def ramp(self, outstanding: int, over_s: float) -> None:
        """Reaches `outstanding` evenly within one call's time, so that steady state has no waves."""
        started, sent = time.monotonic(), 0
        while sent < outstanding:
            due = min(outstanding, round(outstanding * (time.monotonic() - started) / over_s))
            self.enqueue(due - sent + len(self.collect(5)))
            sent = due

    def keep(self, results: int) -> list[float]:
        """Replaces every finished request by a new one until so many have finished; their total times in ms."""
        latencies: list[float] = []
        give_up = time.monotonic() + _STALLED_S
        while len(latencies) < results:
            finished = self.collect()
            self.enqueue(len(finished))
            latencies += finished
            if finished:
                give_up = time.monotonic() + _STALLED_S
            elif time.monotonic() > give_up:
                raise RuntimeError(f"no result for {_STALLED_S:.0f} s, {len(self._enqueued_ms)} outstanding")
        return latencies

    def finish(self, within_s: float) -> None:
        """Waits for what is outstanding."""
        give_up = time.monotonic() + within_s
        while self._enqueued_ms and time.monotonic() < give_up:
            self.collect()

    def drain(self, within_s: float) -> None:
        """For tasks without results: waits until Celery has taken and acknowledged everything."""
        give_up = time.monotonic() + within_s
        while self.client.llen(self.template.queue) or self.client.hlen("unacked"):
            if time.monotonic() > give_up:
                raise RuntimeError("the queue was not drained in time")
            time.sleep(0.02)

    def _read(self, block_ms: int) -> list[Any]:
        found: Any = self.client.xread({self.stream: self._read_to}, count=_READ_AT_ONCE, block=block_ms)
        return list(found.items()) if isinstance(found, dict) else list(found or [])
