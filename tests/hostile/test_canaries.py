"""A gateway that echoes key and prompt wherever a word fits: neither is in a log, an event, a trace, a metric."""

import asyncio
import base64
import json
from collections.abc import Callable, Generator
from typing import Any, Final
from urllib.parse import quote

import pytest
from support.probe_client import Probe
from support.producer import Producer, body
from support.raw_gateway import Conversation, plain, serve
from support.sentry_fleet import reporting
from support.sentry_receiver import SentryReceiver

KEY: Final = "Zq7/canary+Key=91xWv"
PROMPT: Final = "canaryPrompt-5e21d0"
METADATA: Final = "canary-metadata-88af"
ENCODINGS: Final[dict[str, Callable[[str], str]]] = {
    "plain": str,
    "percent": lambda key: quote(key, safe=""),
    "base64": lambda key: base64.b64encode(key.encode()).decode().rstrip("="),
    "hex": lambda key: key.encode().hex(),
    "escaped": lambda key: "".join(f"\\u{ord(char):04x}" for char in key),
}


@pytest.fixture
def receiver() -> Generator[SentryReceiver]:
    with SentryReceiver() as receiver:
        yield receiver


def replies(echo: str) -> list[bytes]:
    """An answer, refusals, and a broken answer, with the echo in every place that is called an id or a code."""
    good = (
        '{"id":"%s","model":"%s","status":"completed","error":null,"output":[{"id":"%s","type":"message",'
        '"role":"assistant","status":"completed","content":[{"type":"output_text","text":"hi"}]}]}'
    )
    header = f"x-request-id: {echo.encode('ascii', 'replace').decode()}"
    error = '{"error":{"code":"%s","type":"%s","message":"no: %s","param":"%s"}}'
    statuses = ("400 Bad Request", "500 Internal Server Error", "422 Unprocessable Entity")
    refusals = [plain((error % ((echo,) * 4)).encode(), header, status=status) for status in statuses]
    return [plain((good % ((echo,) * 3)).encode(), header), *refusals, plain(b'{"id":"' + echo.encode(), header)]


@pytest.mark.parametrize("what", [*ENCODINGS, "prompt"])
async def test_no_canary_leaves_in_a_word_of_the_gateways(
    redis_url: str, producer: Producer, receiver: SentryReceiver, what: str
) -> None:
    echo = PROMPT if what == "prompt" else ENCODINGS[what](KEY)
    told = replies(echo)
    turn = iter(range(10**6))

    async def script(peer: Conversation) -> None:
        while True:
            await peer.request()
            await peer.send(told[next(turn) % len(told)])

    async with serve(script) as gateway:
        written = await asyncio.to_thread(_played, redis_url, gateway.url, producer, receiver, len(told))

    canaries = [PROMPT, METADATA, *(encode(KEY) for encode in ENCODINGS.values())]
    for place, text in written.items():
        for canary in canaries:
            held_by_the_caller = place == "results" and canary in (PROMPT, METADATA)
            assert held_by_the_caller or canary not in text, f"{canary} in {place}"
    assert "upstream_request_id" in written["log"]


def _played(url: str, gateway: str, producer: Producer, receiver: SentryReceiver, count: int) -> dict[str, str]:
    """Everything that left the worker while it made so many requests."""
    with reporting(url, gateway, receiver) as fleet:
        worker = fleet.start(upstream_api_key=KEY, log_level="DEBUG", max_attempts=1, concurrency=1)
        for _ in range(count):
            producer.enqueue({"body": body(PROMPT), "metadata": {"note": METADATA}})
        results = producer.results(count, within_s=40)
        metrics = Probe.of(worker).get("/metrics")[1]
        inspected: Any = producer.app.control.inspect(timeout=1)
        shown = json.dumps([inspected.stats(), inspected.active(), inspected.conf()], default=str)
        worker.terminate()
        worker.wait()
        sent = b"\n".join(receiver.raw).decode(errors="replace")
        return {
            "log": worker.log,
            "Sentry": sent,
            "metrics": metrics,
            "inspect": shown,
            "results": json.dumps(results, ensure_ascii=False),
        }
