"""The most memory that one worker takes under the worst mix of neighbours, held against the chart's limit."""

import asyncio
import json
import re
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from support.producer import Producer, body
from support.raw_gateway import Conversation, plain, serve
from support.worker_process import Fleet

from api_contracts.celery_messages import encode
from api_contracts.queues import DEAD_STREAM

ROOT: Final = Path(__file__).parents[2]
MEBIBYTE: Final = 1024 * 1024
MESSAGES: Final = 60
WAIT_S: Final = 4.0
SMALL_WORKER: Final = 150 * MEBIBYTE
"""Seen: 87 MiB, as with no such message."""


def limit_bytes() -> int:
    """Read from the chart's values as text: the chart's tools are no part of this target."""
    values = (ROOT / "helm" / "values.yaml").read_text(encoding="utf-8")
    of_worker, _of_dashboard = re.findall(r"limits: \{memory: (\d+)Mi\}", values)
    return int(of_worker) * MEBIBYTE


@contextmanager
def slow_gateway(answer: bytes) -> Generator[str]:
    """Lets every call wait, so that its request is held, and then answers at length."""
    ready, loop = threading.Event(), asyncio.new_event_loop()
    found: list[str] = []
    over = asyncio.Event()

    async def script(peer: Conversation) -> None:
        while True:
            await peer.request()
            await asyncio.sleep(WAIT_S)  # what a slow model does; nothing is waited for
            await peer.send(plain(answer))

    async def run() -> None:
        async with serve(script) as gateway:
            found.append(gateway.url)
            ready.set()
            await over.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),))
    thread.start()
    ready.wait()
    try:
        yield found[0]
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()
        loop.close()


def worst_mix(number: int) -> bytes:
    """Bodies near the limit of text, of as many values as are allowed, and of more than are allowed."""
    kinds: list[dict[str, Any]] = [
        body("x" * 3_800_000),
        body(tools=[{"a": [{}] * 19_000, "b": "y" * 2_000_000}]),
        body(tools=[{"a": [{}] * 1_000_000}]),
    ]
    document = json.dumps({"body": kinds[number % len(kinds)]}).encode()
    return encode(document, task_id=f"mix-{number}", lane="batch")


def peak_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


@pytest.mark.timeout(120)
def test_messages_of_hundreds_of_megabytes_never_leave_redis(fleet: Fleet, producer: Producer) -> None:
    """Each is answered under its own id and kept as a dead letter; a neighbour is answered as ever."""
    sizes = (240_000_000, 310_000_000, 450_000_000)
    for number, size in enumerate(sizes):
        document = json.dumps({"body": body("x"), "request_id": f"giant-{number}"}).encode()
        padded = document[:-1] + b', "pad":"' + b"y" * (size * 3 // 4) + b'"}'
        producer.push_raw(encode(padded, task_id=f"task-{number}", lane="batch"), lane="batch")
    worker = fleet.start()
    bystander = producer.ask()

    producer.results(len(sizes) + 1, within_s=60)

    codes = {number: producer.result(f"giant-{number}")["error"]["code"] for number in range(len(sizes))}
    assert codes == dict.fromkeys(range(len(sizes)), "request_too_large")
    assert producer.result(bystander)["outcome"] == "completed"
    assert producer.redis.xlen(DEAD_STREAM) == len(sizes)
    assert peak_bytes(worker.process.pid) < SMALL_WORKER


@pytest.mark.timeout(300)
def test_one_worker_stays_within_the_charts_limit(redis_url: str, producer: Producer) -> None:
    """Sixty messages of up to 3.9 MB, a gateway that is slow, and answers of 4 MB; a bystander is answered."""
    text = b"z" * (4 * MEBIBYTE)
    answer = (
        b'{"id":"resp_0a1b","status":"completed","output":[{"type":"message","role":"assistant","content":'
        b'[{"type":"output_text","text":"' + text + b'"}]}]}'
    )
    with slow_gateway(answer) as url, Fleet(redis_url, url) as fleet:
        worker = fleet.start(requests_per_minute=60_000)  # as many calls at once as their bytes allow
        for number in range(MESSAGES):
            producer.push_raw(worst_mix(number), lane="batch")
        bystander = producer.ask()

        producer.results(MESSAGES + 1, within_s=200)

        assert producer.result(bystander)["outcome"] == "completed"
        peak = peak_bytes(worker.process.pid)
        assert worker.process.poll() is None
        print(f"at most {peak / MEBIBYTE:.0f} MiB")  # noqa: T201  # what is measured
        assert peak < limit_bytes(), f"{peak / MEBIBYTE:.0f} MiB"
