"""`/livez`, `/readyz` and `/metrics` on WORKER_HTTP_PORT, from a thread of its own, so that a stuck loop is seen.

    /livez   503 when the event loop, or Celery's consumer, shows no heartbeat: only a restart helps
    /readyz  503 until the worker takes work, while Redis is away, and from SIGTERM on

A restart cures no paused or broken gateway, no empty wallet and no lost Redis, so none of them fails /livez.

Whoever reaches the port costs little: two threads whatever comes, at most MAX_CONNECTIONS connections, and at most
REQUEST_S for one request from its first byte to its last. When there are too many connections the oldest is closed,
so that a probe gets its answer among clients that never finish theirs.
"""

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from email.parser import BytesHeaderParser
from http import HTTPStatus
from ipaddress import ip_address
from typing import Any, Final, Literal

from prometheus_client.exposition import choose_encoder

from worker.telemetry import log

REQUEST_S: Final = 5.0
MAX_CONNECTIONS: Final = 64
_HEAD_BYTES: Final = 16 * 1024
LOOPBACK: Final = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class ProbeAnswer:
    """Whether all is well; `facts` say why."""

    ok: bool
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Probes:
    """The sources of the answers; each must answer at once, from any thread. Only `metrics` may take time."""

    live: Callable[[], ProbeAnswer]
    ready: Callable[[], ProbeAnswer]
    metrics: Any
    """A prometheus_client registry."""
    metrics_from: Literal["anywhere", "loopback"] = "anywhere"
    """Whether clients on other machines get the metrics as well; the probes answer everybody."""


@dataclass(frozen=True, slots=True)
class _Reply:
    status: int
    content_type: str
    body: bytes

    def encoded(self, *, with_body: bool) -> bytes:
        head = (
            f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}\r\n"
            f"Content-Type: {self.content_type}\r\nContent-Length: {len(self.body)}\r\n"
            "Cache-Control: no-store\r\nConnection: close\r\n\r\n"
        )
        return head.encode() + (self.body if with_body else b"")


class ProbeServer:
    """Serves until closed; raises OSError at once where the port is taken."""

    def __init__(self, port: int, probes: Probes) -> None:
        """Port 0 is any free one, on loopback: several workers on a machine; else every address, as kubelets need."""
        self._probes = probes
        self._socket = _listening(port)
        self.port: int = self._socket.getsockname()[1]
        self._connections: dict[asyncio.StreamWriter, None] = {}  # oldest first
        self._scrapes = ThreadPoolExecutor(1, thread_name_prefix="scrape")
        self._loop = asyncio.new_event_loop()
        self._closed = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="probes", daemon=True)
        self._thread.start()
        log("probes.opened", port=self.port)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._closed.set)
        self._thread.join()
        self._scrapes.shutdown(wait=False, cancel_futures=True)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._connected, sock=self._socket, limit=_HEAD_BYTES)
        await self._closed.wait()
        server.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections[writer] = None
        if len(self._connections) > MAX_CONNECTIONS:
            next(iter(self._connections)).transport.abort()
        try:
            async with asyncio.timeout(REQUEST_S):
                await self._exchange(reader, writer)
        except (TimeoutError, OSError, EOFError, asyncio.LimitOverrunError):
            writer.transport.abort()  # the client is too slow, gone, or no HTTP client
        finally:
            self._connections.pop(writer, None)
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first, _, headers = (await reader.readuntil(b"\r\n\r\n")).partition(b"\r\n")
        method, _, target = first.decode("latin-1").partition(" ")
        if method in ("GET", "HEAD"):
            accept = BytesHeaderParser().parsebytes(headers).get("accept", "")
            path = target.partition(" ")[0].partition("?")[0]
            local = _is_local(writer.get_extra_info("peername")[0])
            reply = await self._reply(path, accept, local=local)
        else:
            reply = _Reply(405, "text/plain", b"GET or HEAD\n")
        writer.write(reply.encoded(with_body=method != "HEAD"))
        await writer.drain()

    async def _reply(self, path: str, accept: str, *, local: bool) -> _Reply:
        match path:
            case "/livez":
                return _verdict(self._probes.live())
            case "/readyz":
                return _verdict(self._probes.ready())
            case "/metrics" if not local and self._probes.metrics_from == "loopback":
                return _Reply(403, "text/plain", b"WORKER_METRICS_FROM=loopback: read them from this pod\n")
            case "/metrics":
                encode, content_type = choose_encoder(accept)
                body = await self._loop.run_in_executor(self._scrapes, encode, self._probes.metrics)
                return _Reply(200, content_type, body)
            case _:
                return _Reply(404, "text/plain", b"/livez, /readyz or /metrics\n")


def _listening(port: int) -> socket.socket:
    if port == 0:
        return socket.create_server((LOOPBACK, 0), backlog=MAX_CONNECTIONS)
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=MAX_CONNECTIONS)
    return socket.create_server(("", port), backlog=MAX_CONNECTIONS)


def _is_local(peer: str) -> bool:
    """Whether the client is on this machine, or in this pod; IPv4 may come mapped into IPv6."""
    address = ip_address(peer.partition("%")[0])
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def _verdict(answer: ProbeAnswer) -> _Reply:
    body = json.dumps({"ok": answer.ok, **answer.facts}).encode() + b"\n"
    return _Reply(200 if answer.ok else 503, "application/json", body)
