"""A small Sentry: takes envelopes over HTTP like the real one, keeps every byte, and can misbehave.

(Envelope format: develop.sentry.dev/sdk/data-model/envelopes)
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from support.loopback import Loopback, Reply, Request

Manner = Literal["ok", "refuse", "rate_limit", "too_large", "hang"]
STATUS = {"ok": 200, "refuse": 503, "rate_limit": 429, "too_large": 413}
LONGEST_HANG_S = 60.0
KEY = "0123456789abcdef0123456789abcdef"


@dataclass(frozen=True, slots=True)
class Item:
    kind: str
    payload: Any


@dataclass(frozen=True, slots=True)
class Envelope:
    headers: dict[str, Any]
    items: tuple[Item, ...]

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        head, _, rest = raw.partition(b"\n")
        return cls(json.loads(head), tuple(_items(rest)))


def _items(rest: bytes) -> Iterator[Item]:
    while rest.strip():
        line, _, rest = rest.partition(b"\n")
        header = json.loads(line)
        size = header.get("length", rest.find(b"\n") if b"\n" in rest else len(rest))
        payload, rest = rest[:size], rest[size:].removeprefix(b"\n")
        yield Item(header["type"], json.loads(payload))


@dataclass(slots=True)
class SentryReceiver(Loopback):
    """A Sentry of one manner, which may change at any time."""

    manner: Manner = "ok"
    raw: list[bytes] = field(default_factory=list[bytes])
    """Every envelope, uncompressed, also those that were refused."""
    accepted: list[Envelope] = field(default_factory=list[Envelope])

    @property
    def dsn(self) -> str:
        return f"http://{KEY}@127.0.0.1:{self.port}/1"

    def answer(self, request: Request) -> Reply:
        self.raw.append(request.body)
        if self.manner == "hang":
            self.ended.wait(LONGEST_HANG_S)
            return Reply(STATUS["refuse"], b"{}")
        if self.manner == "ok":
            self.accepted.append(Envelope.parse(request.body))
        return Reply(STATUS[self.manner], b"{}", {"Retry-After": "60"} if self.manner == "rate_limit" else {})

    def events(self, kind: str | None = None) -> list[dict[str, Any]]:
        """Error events, of one failure class if it is given."""
        return [one for one in self._payloads("event") if kind is None or one["tags"]["failure_class"] == kind]

    def incidents(self, kind: str) -> list[dict[str, Any]]:
        """Events of a failure class, those that tell its end left out."""
        return [event for event in self.events(kind) if "recovered" not in event["tags"]]

    def transactions(self) -> list[dict[str, Any]]:
        return self._payloads("transaction")

    def _payloads(self, kind: str) -> list[dict[str, Any]]:
        return [item.payload for envelope in list(self.accepted) for item in envelope.items if item.kind == kind]
