"""One worker behind a slow link: how long its requests take, and how many bytes cross the link for them."""

import base64
import json
import random
import time
from dataclasses import dataclass
from typing import Final

from support.links import SlowLink
from support.polling import wait_until
from support.producer import Producer, body
from support.worker_process import Fleet, WorkerProcess
from worker.devtools.devstack import embedded_valkey, simulator_process

IDLE_BYTES_PER_S: Final = 8_000
"""The most bytes that an idle worker and Celery's own connection exchange with Redis, both ways."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkRun:
    """The result of a number of equal requests."""

    mbit_per_s: float
    round_trip_ms: float
    requests: int
    message_bytes: int
    seconds: float
    """From the start of the worker's work to the last result."""
    needed: int
    """Bytes of the messages and of the results."""
    carried: int
    """Bytes both ways, without what an idle worker says."""
    calls: int
    lost: list[str]
    """Every time the worker said that Redis is lost."""

    @property
    def ratio(self) -> float:
        return self.carried / self.needed

    @property
    def share(self) -> float:
        """Of the time that the bytes needed would take on this link if nothing else did."""
        return 8 * self.needed / (self.mbit_per_s * 1e6) / self.seconds

    def line(self) -> str:
        return (
            f"{self.mbit_per_s:5.0f} Mbit/s {self.round_trip_ms:4.0f} ms: {self.requests} x {self.message_bytes} bytes "
            f"in {self.seconds:.1f} s = {self.requests / self.seconds:.1f}/s, {self.share:.0%} of the link; "
            f"bytes sent {self.ratio:.2f} x needed; Redis lost {len(self.lost)} times"
        )


def message(request_id: str, size: int, prompt: str = "") -> bytes:
    """A Celery message of about `size` bytes with text that does not compress."""
    filler = base64.b64encode(random.Random(request_id).randbytes(size * 9 // 16)).decode()
    text = json.dumps([[{"body": body(f"{prompt} {filler}"), "request_id": request_id}], {}, {}])
    headers = {"task": "responses.create", "id": request_id}
    properties = {"correlation_id": request_id, "body_encoding": "base64"}
    coded = base64.b64encode(text.encode()).decode()
    return json.dumps(
        {"body": coded, "headers": headers, "properties": properties, "content-type": "application/json"}
    ).encode()


def run(requests: int, size: int, *, mbit_per_s: float, round_trip_ms: float, within_s: float = 300) -> LinkRun:
    """Enqueues everything beside the link, then lets one worker work through it behind the link."""
    with (
        embedded_valkey() as valkey,
        simulator_process({}) as gateway,
        Producer(valkey.url) as producer,
        SlowLink(valkey.port) as link,
        Fleet(link.url, gateway.url) as fleet,
    ):
        worker = fleet.start()
        producer.push_raw(message("first", 1000))  # Redis gets its scripts once, not once for each run
        producer.results(1)
        producer.redis.delete("responses:results")
        link.tune(mbit_per_s=mbit_per_s, round_trip_ms=round_trip_ms)
        messages = [message(f"r-{number}", size) for number in range(requests)]
        before, began = link.carried, time.monotonic()
        producer.redis.lpush("responses.interactive", *messages)
        wait_until(lambda: producer.redis.xlen("responses:results") >= requests, within_s=within_s, what="all results")
        seconds = time.monotonic() - began
        carried = (link.carried - before).total() - round(IDLE_BYTES_PER_S * seconds)
        results = producer.redis.xrange("responses:results")
        assert len({fields[b"request_id"] for _, fields in results}) == len(results) == requests
        assert producer.leftovers() == {}
        return LinkRun(
            mbit_per_s=mbit_per_s,
            round_trip_ms=round_trip_ms,
            requests=requests,
            message_bytes=len(messages[0]),
            seconds=seconds,
            needed=sum(map(len, messages)) + sum(len(fields[b"result"]) for _, fields in results),
            carried=carried,
            calls=len(gateway.calls()) - 1,
            lost=_lost(worker),
        )


def _lost(worker: WorkerProcess) -> list[str]:
    return [event["error"] for event in worker.events("redis.lost")]
