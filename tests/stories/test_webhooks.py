"""The bridge to webhooks, `examples/webhooks.py`: signed, at least once, each result under one id."""

import json
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

import pytest
from openai import OpenAI
from support.command_line import ROOT, started
from support.loopback import Loopback, Reply, Request
from support.polling import wait_until
from support.producer import Producer
from support.worker_process import Fleet

SECRET = "whsec_Y2FuYXJ5LXNlY3JldA=="


@dataclass
class Receiver(Loopback):
    """Keeps the requests that it gets, and refuses the first one of each id."""

    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list[tuple[dict[str, str], bytes]])

    def answer(self, request: Request) -> Reply:
        seen = any(earlier["webhook-id"] == request.headers["webhook-id"] for earlier, _ in self.got)
        self.got.append((request.headers, request.body))
        return Reply(204 if seen else 503)


@pytest.fixture
def receiver() -> Generator[Receiver]:
    with Receiver() as receiver:
        yield receiver


def test_each_result_is_posted_until_it_is_taken(
    receiver: Receiver, fleet: Fleet, producer: Producer, redis_url: str
) -> None:
    """The OpenAI SDK checks the signature and reads the event."""
    fleet.start()
    for name, prompt in {"good": "Grüße", "bad": "[[sim:400]]"}.items():
        producer.ask(prompt, request_id=name)
    settings = {
        "WORKER_REDIS_URL": redis_url,
        "WEBHOOK_URL": f"{receiver.url}/hook",
        "WEBHOOK_SECRET": SECRET,
        "WEBHOOK_RETRY_S": "0.5",
    }

    with started(str(ROOT / "examples" / "webhooks.py"), **settings):
        wait_until(lambda: len(receiver.got) >= 4, what="two posts of each result")
        wait_until(lambda: _pending(producer) == 0, what="both acknowledged")

    events = [_unwrapped(headers, body) for headers, body in receiver.got]
    assert sorted(event.id for event in events) == ["default:bad"] * 2 + ["default:good"] * 2
    assert {event.id: event.type for event in events} == {
        "default:good": "response.completed",
        "default:bad": "response.failed",
    }
    (good, _) = (json.loads(body) for headers, body in receiver.got if headers["webhook-id"] == "default:good")
    assert good["data"]["result"]["response"]["output"][0]["content"][0]["text"] == "Echo: Grüße"


def _unwrapped(headers: dict[str, str], body: bytes) -> Any:
    with OpenAI(api_key="none") as sdk:
        return sdk.webhooks.unwrap(body, headers, secret=SECRET)


def _pending(producer: Producer) -> int:
    return producer.redis.xpending("responses:results", "webhooks")["pending"]
