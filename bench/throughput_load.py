"""Load for the throughput bench: Celery messages in, results out, so many of them outstanding at any time."""

import base64
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

Times = dict[str, float]
"""Request id to the ms from enqueueing to the entry in the result stream."""


@dataclass(frozen=True, slots=True)
class Template:
    """One message as Celery itself writes it, to be sent many times under other ids; its prompt ends with the id."""

    queue: str
    message: bytes
    body: bytes

    @classmethod
    def captured(cls, redis_url: str, *, task: str, queue: str, prompt: str) -> Self:
        """Sends it through Celery once and takes it back from its list, which must be empty."""
        text = f"{prompt} [[id:{_ID}]]"
        body = {"model": "gpt-5.4-mini", "input": [{"role": "user", "content": text}], "max_output_tokens": 64}
        app: Any = Celery("producer", broker=redis_url, set_as_current=False)
        app.send_task(task, args=[{"body": body}], queue=queue, task_id=_ID)
        app.close()
        client: Any = redis.Redis.from_url(redis_url)  # pyright: ignore[reportUnknownMemberType]  # untyped kwargs
        raw: bytes = client.rpop(queue)
        client.close()
        message = json.loads(raw)
        payload: str = message["body"]
        once = raw.replace(message["properties"]["delivery_tag"].encode(), _ID.encode())
        return cls(queue, once.replace(payload.encode(), b"BODY"), base64.b64decode(payload))

    def under(self, task_id: str) -> bytes:
        body = base64.b64encode(self.body.replace(_ID.encode(), task_id.encode()))
        return self.message.replace(_ID.encode(), task_id.encode()).replace(b"BODY", body)


@dataclass(slots=True)
class Load:
    """Enqueues through one template and knows of each request how long its result took."""

    client: Any
    template: Template
    stream: str
    stalled_s: float = _STALLED_S
    """Without a result for so long, the load gives up."""
    _enqueued_ms: dict[bytes, float] = field(default_factory=dict[bytes, float])
    _read_to: bytes | str = "0"

    def enqueue(self, count: int) -> None:
        if not count:
            return
        ids = [str(uuid.uuid4()) for _ in range(count)]
        now_ms = time.time() * 1000
        self._enqueued_ms |= {task_id.encode(): now_ms for task_id in ids}
        self.client.lpush(self.template.queue, *(self.template.under(task_id) for task_id in ids))

    def collect(self, block_ms: int = 20) -> Times:
        """Total times of the results that came; a result's time is its entry id, by the server's clock."""
        times: Times = {}
        for _, entries in self._read(block_ms):
            for entry_id, fields in entries:
                if fields[b"outcome"] != b"completed":
                    raise RuntimeError(f"a request ended as {fields[b'outcome'].decode()}: this is no clean run")
                task_id: bytes = fields[b"request_id"]
                times[task_id.decode()] = int(entry_id.partition(b"-")[0]) - self._enqueued_ms.pop(task_id)
                self._read_to = entry_id
        return times

    def ramp(self, outstanding: int, over_s: float) -> None:
        """Reaches `outstanding` evenly within one call's time, so that steady state has no waves."""
        started, sent = time.monotonic(), 0
        while sent < outstanding:
            due = min(outstanding, round(outstanding * (time.monotonic() - started) / over_s))
            self.enqueue(due - sent + len(self.collect(5)))
            sent = due

    def keep(self, results: int) -> Times:
        """Replaces every finished request by a new one until so many have finished."""
        times: Times = {}
        give_up = time.monotonic() + self.stalled_s
        while len(times) < results:
            finished = self.collect()
            self.enqueue(len(finished))
            times |= finished
            if finished:
                give_up = time.monotonic() + self.stalled_s
            elif time.monotonic() > give_up:
                raise RuntimeError(f"no result for {self.stalled_s:.0f} s, {len(self._enqueued_ms)} outstanding")
        return times

    def finish(self, within_s: float) -> None:
        """Waits for what is outstanding."""
        give_up = time.monotonic() + within_s
        while self._enqueued_ms and time.monotonic() < give_up:
            self.collect()

    def drain(self) -> None:
        """For tasks without results: waits until Celery has taken and acknowledged everything."""
        give_up = time.monotonic() + self.stalled_s
        while self.client.llen(self.template.queue) or self.client.hlen("unacked"):
            if time.monotonic() > give_up:
                raise RuntimeError("the queue was not drained in time")
            time.sleep(0.02)

    def _read(self, block_ms: int) -> "list[tuple[bytes, list[tuple[bytes, dict[bytes, bytes]]]]]":
        return self.client.xread({self.stream: self._read_to}, count=_READ_AT_ONCE, block=block_ms)
