"""A small Sentry: takes envelopes over HTTP like the real one, keeps every byte, and can misbehave.

(Envelope format: develop.sentry.dev/sdk/data-model/envelopes)
"""

import gzip
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, Self

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
class SentryReceiver:
    """Listens on loopback from `with` to its end; what arrived may be read from any thread."""

    manner: Manner = "ok"
    raw: list[bytes] = field(default_factory=list[bytes])
    """Every envelope, uncompressed, also those that were refused."""
    accepted: list[Envelope] = field(default_factory=list[Envelope])
    _ends: threading.Event = field(default_factory=threading.Event)
    _server: ThreadingHTTPServer | None = None

    def __enter__(self) -> Self:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = 65536  # head and body in one packet: 40 ms less per envelope

            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers["content-length"]))
                status = receiver.take(gzip.decompress(raw) if self.headers["content-encoding"] == "gzip" else raw)
                self.send_response(status)
                if status == STATUS["rate_limit"]:
                    self.send_header("Retry-After", "60")
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, format: str, *args: Any) -> None: ...  # noqa: A002  # the base's name

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()

    @property
    def dsn(self) -> str:
        assert self._server is not None
        return f"http://{KEY}@127.0.0.1:{self._server.server_port}/1"

    def take(self, raw: bytes) -> int:
        """Keeps what came; the HTTP status to answer with."""
        self.raw.append(raw)
        if self.manner == "hang":
            self._ends.wait(LONGEST_HANG_S)
            return STATUS["refuse"]
        if self.manner == "ok":
            self.accepted.append(Envelope.parse(raw))
        return STATUS[self.manner]

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
