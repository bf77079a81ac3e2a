"""A gateway that echoes key and prompt wherever a word fits: neither is anywhere that somebody but the caller sees."""

import asyncio
import base64
import json
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import pytest
from starlette.testclient import TestClient
from support.command_line import called
from support.otlp_receiver import OtlpReceiver
from support.probe_client import Probe
from support.producer import Producer, body
from support.raw_gateway import Conversation, plain, serve
from support.sentry_fleet import reporting
from support.sentry_receiver import SentryReceiver

from worker.config.settings import load
from worker.dashboard.access import Door
from worker.dashboard.server import create_app
from worker.dashboard.watch import FleetWatch

KEY: Final = "Zq7/canary+Key=91xWv"
PROMPT: Final = "canaryPrompt-5e21d0"
METADATA: Final = "canary-metadata-88af"
ENCODINGS: Final[dict[str, Callable[[str], str]]] = {
    "plain": str,
    "percent": lambda key: quote(key, safe=""),
    "base64": lambda key: base64.b64encode(key.encode()).decode().rstrip("="),
    "hex": lambda key: key.encode().hex(),
    "escaped": lambda key: "".join(f"\\u{ord(char):04x}" for char in key),
    "one letter escaped": lambda key: f"\\u{ord(key[0]):04x}{key[1:]}",
    "slashes escaped": lambda key: key.replace("/", "\\/"),
}


TERMINALS: Final = (
    "status", "status --json", "routes", "results", "dead list", "usage", "audit", "limits", "doctor",
)  # fmt: skip
"""Commands of operators that show what others wrote; `show` of each request comes beside them."""


@pytest.fixture
def collector() -> Generator[OtlpReceiver]:
    with OtlpReceiver() as receiver:
        yield receiver


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
    redis_url: str, producer: Producer, receiver: SentryReceiver, collector: OtlpReceiver, what: str
) -> None:
    """Log, Sentry, traces, metrics, remote control, operators' terminals and the dashboard's page."""
    echo = PROMPT if what == "prompt" else ENCODINGS[what](KEY)
    told = replies(echo)
    turn = iter(range(10**6))

    async def script(peer: Conversation) -> None:
        while True:
            await peer.request()
            await peer.send(told[next(turn) % len(told)])

    async with serve(script) as gateway:
        world = World(redis_url, gateway.url, producer, receiver, collector)
        written = await asyncio.to_thread(world.played, len(told))

    canaries = [PROMPT, METADATA, *(encode(KEY) for encode in ENCODINGS.values())]
    for place, text in written.items():
        for canary in canaries:
            held_by_the_caller = place == "results" and canary in (PROMPT, METADATA)
            assert held_by_the_caller or canary not in text, f"{canary} in {place}"
    assert "upstream_request_id" in written["log"]
    assert "process responses.interactive" in written["traces"]
    assert '"default"' in written["page"]


@dataclass(frozen=True)
class World:
    redis_url: str
    gateway: str
    producer: Producer
    receiver: SentryReceiver
    collector: OtlpReceiver

    def played(self, count: int) -> dict[str, str]:
        """Everything that left the worker while it made so many requests, and what is shown of them."""
        traced = {"OTEL_EXPORTER_OTLP_ENDPOINT": self.collector.url, "OTEL_BSP_SCHEDULE_DELAY": "100"}
        with reporting(self.redis_url, self.gateway, self.receiver, **traced) as fleet:
            worker = fleet.start(upstream_api_key=KEY, log_level="DEBUG", max_attempts=1, concurrency=1)
            for _ in range(count):
                self.producer.enqueue({"body": body(PROMPT), "metadata": {"note": METADATA}})
            results = self.producer.results(count, within_s=40)
            self.producer.push_raw(b'{"torn": "' + PROMPT.encode())
            metrics = Probe.of(worker).get("/metrics")[1]
            inspected: Any = self.producer.app.control.inspect(timeout=1)
            shown = json.dumps([inspected.stats(), inspected.active(), inspected.conf()], default=str)
            seen = self.terminals([result["request_id"] for result in results]) | {"page": self.page()}
            worker.terminate()
            worker.wait()
            log = worker.log
        sent = b"\n".join(self.receiver.raw).decode(errors="replace")
        return seen | {
            "log": log,
            "Sentry": sent,
            "traces": repr(self.collector.spans),
            "metrics": metrics,
            "inspect": shown,
            "results": json.dumps(results, ensure_ascii=False),
        }

    def terminals(self, request_ids: list[str]) -> dict[str, str]:
        """The output of each command, whose environment holds the key as a worker's does."""
        own = {
            "WORKER_REDIS_URL": self.redis_url,
            "WORKER_UPSTREAM_URL": self.gateway,
            "WORKER_UPSTREAM_API_KEY": KEY,
        }
        shown: dict[str, str] = {}
        for command in (*TERMINALS, *(f"show {request_id}" for request_id in request_ids)):
            ran = called(*command.split(), **own)
            shown[f"terminal: {command}"] = ran.out + ran.err
        return shown

    def page(self) -> str:
        watch = FleetWatch(load(redis_url=self.redis_url))
        browser = TestClient(create_app(watch, Door("token")), base_url="http://127.0.0.1")
        return browser.get("/view", headers={"Authorization": "Bearer token"}).text
