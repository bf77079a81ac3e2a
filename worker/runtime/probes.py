"""`/livez`, `/readyz` and `/metrics` on WORKER_HTTP_PORT, from a thread of its own, so that a stuck loop is seen.

    /livez   503 when the event loop, or Celery's consumer, shows no heartbeat: only a restart helps
    /readyz  503 until the worker takes work, while Redis is away, and from SIGTERM on

A paused or broken gateway, an empty wallet, a lost Redis: none of them is cured by a restart, so none fails /livez.
"""

import json
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from prometheus_client.exposition import choose_encoder

from worker.telemetry import log

_READ_S: Final = 5.0
LOOPBACK: Final = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class ProbeAnswer:
    """What a probe answers; `facts` say why."""

    ok: bool
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Probes:
    """What is asked when somebody looks; each must answer at once, from any thread."""

    live: Callable[[], ProbeAnswer]
    ready: Callable[[], ProbeAnswer]
    metrics: Any
    """A prometheus_client registry."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], family: socket.AddressFamily, probes: Probes) -> None:
        self.address_family = family
        self.probes = probes
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        # Without HTTPServer's own reverse lookup of the address, which can take seconds.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is nobody's business."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server  # pyright: ignore[reportIncompatibleVariableOverride]  # the only one that makes these
    timeout = _READ_S
    protocol_version = "HTTP/1.1"
    wbufsize = 65536  # head and body leave together

    def do_GET(self) -> None:
        probes = self.server.probes
        match self.path.partition("?")[0]:
            case "/livez":
                self._answer_verdict(probes.live())
            case "/readyz":
                self._answer_verdict(probes.ready())
            case "/metrics":
                encode, content_type = choose_encoder(self.headers.get("accept", ""))
                self._answer(200, content_type, encode(probes.metrics))
            case _:
                self._answer(404, "text/plain", b"/livez, /readyz or /metrics\n")

    do_HEAD = do_GET  # noqa: N815  # as above

    def _answer_verdict(self, verdict: ProbeAnswer) -> None:
        body = json.dumps({"ok": verdict.ok, **verdict.facts}).encode() + b"\n"
        self._answer(200 if verdict.ok else 503, "application/json", body)

    def _answer(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base's name
        """Probes come every few seconds; a line each would drown the others."""


class ProbeServer:
    """Serves until closed; raises OSError at once where the port is taken."""

    def __init__(self, port: int, probes: Probes) -> None:
        """`port` 0 is any free one, on loopback: several workers on a machine; else every address, as kubelets need."""
        ipv6 = port != 0 and socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if ipv6 else socket.AF_INET
        self._server = _Server((LOOPBACK if port == 0 else "", port), family, probes)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, name="probes", daemon=True)
        self._thread.start()
        log("probes.opened", port=self.port)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
