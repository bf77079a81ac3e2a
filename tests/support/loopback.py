"""A small HTTP server on loopback, which answers each request as its subclass says."""

import gzip
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Request:
    """One request, with its headers in lower case and its body uncompressed."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer; its length is added."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(slots=True)
class Loopback(ABC):
    """Listens from `with` to its end; what it keeps may be read from any thread."""

    ended: threading.Event = field(default_factory=threading.Event, init=False)
    """Set as it ends, for an answer that is never to come."""
    _server: ThreadingHTTPServer | None = field(default=None, init=False)

    @abstractmethod
    def answer(self, request: Request, /) -> Reply:
        """Runs in the thread of its connection."""

    def __enter__(self) -> Self:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self.answer))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()

    @property
    def port(self) -> int:
        assert self._server is not None
        return self._server.server_port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def _handler(answer: Callable[[Request], Reply]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 65536  # head and body in one packet: 40 ms less a request

        def handle_request(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            body = self.rfile.read(int(headers.get("content-length", 0)))
            plain = gzip.decompress(body) if headers.get("content-encoding") == "gzip" else body
            reply = answer(Request(self.command, self.path, headers, plain))
            self.send_response(reply.status)
            for name, value in {**reply.headers, "content-length": str(len(reply.body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(reply.body)

        do_GET = do_POST = handle_request  # noqa: N815  # http.server's own names

        def log_message(self, format: str, *args: Any) -> None: ...  # noqa: A002  # the base's name

    return Handler
