"""A gateway made of bare sockets, for what no HTTP server would do: stall, lie about lengths, reset, drip.

A script is a coroutine over one `Conversation`; every connection runs it from its start. What a script raises
fails the test at the end of `serve`.
"""

import asyncio
import contextlib
import gzip
import socket
import ssl
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import orjson

from worker.gateway.upstream import Upstream

KEY = "sk-canary-7f3a"
BODY = b'{"model": "gpt-5.4-mini",  "input": [{"role": "user", "content": "\xc3\xa9"}]}'
LARGE = b"x" * 9_000_000
"""More than the socket buffers of both sides take."""

RESPONSE = (
    b'{ "id": "resp_1",\n"object": "response", "created_at": 1773132155, "model": "gpt-5.4-mini", '
    b'"status": "completed", "output": [{"type": "message", "role": "assistant", "content": '
    b'[{"type": "output_text", "text": "h\xc3\xa9 \\u00e9 \\"}] {[", "annotations": []}]}],\n'
    b'"usage": {"input_tokens": 8, "output_tokens": 15, "total_tokens": 23}, "new": 1.0 }'
)
INCOMPLETE = RESPONSE.replace(b'"completed"', b'"incomplete", "incomplete_details": {"reason": "max_output_tokens"}')
DELTA = b'{"type":"response.output_text.delta","delta":"h"}'


@dataclass(frozen=True, slots=True)
class Request:
    """The request that arrived: its line, the headers in lower case, the body."""

    line: str
    headers: dict[str, str]
    body: bytes


@dataclass(slots=True)
class Conversation:
    """One connection as the gateway sees it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    gateway: "RawGateway"

    async def request(self) -> Request:
        """The next request, read to its end; raises `IncompleteReadError` once the peer has gone."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:-2])}
        request = Request(head[0], headers, await self._body(headers))
        self.gateway.requests.append(request)
        return request

    async def _body(self, headers: dict[str, str]) -> bytes:
        assert "transfer-encoding" not in headers, "gateways refuse bodies of unknown length"
        return await self.reader.readexactly(int(headers.get("content-length", "0")))

    async def send(self, *pieces: bytes, every_s: float = 0) -> None:
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()
            await asyncio.sleep(every_s)

    async def answer(self, body: bytes, *headers: str, status: str = "200 OK", kind: str = "application/json") -> None:
        await self.send(head(f"content-length: {len(body)}", *headers, status=status, kind=kind) + body)

    def reset(self) -> None:
        """Break the connection with RST, as a killed server or a proxy out of patience does."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def hang(self) -> None:
        """Do nothing until the peer closes the connection, and note that it did."""
        with contextlib.suppress(ConnectionError):
            await self.reader.read()
        self.gateway.peer_left.set()


Script = Callable[[Conversation], Awaitable[None]]


@dataclass(slots=True)
class RawGateway:
    """Its address and the requests that it has seen."""

    port: int = 0
    scheme: str = "http"
    connections: int = 0
    requests: list[Request] = field(default_factory=list[Request])
    peer_left: asyncio.Event = field(default_factory=asyncio.Event)
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    """Set by a script where its test wants to step in."""
    resume: asyncio.Event = field(default_factory=asyncio.Event)
    """Set by a test to let its script go on."""
    conversations: list[Conversation] = field(default_factory=list[Conversation])

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"


@contextlib.asynccontextmanager
async def serve(script: Script, tls: ssl.SSLContext | None = None) -> AsyncGenerator[RawGateway]:
    """A listening gateway; at the end its connections are dropped and the scripts' errors raised."""
    gateway = RawGateway(scheme="https" if tls else "http")
    running: set[asyncio.Task[None]] = set()

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        gateway.connections += 1
        conversation = Conversation(reader, writer, gateway)
        gateway.conversations.append(conversation)
        try:
            await script(conversation)
        except (asyncio.IncompleteReadError, ConnectionError):
            gateway.peer_left.set()
        finally:
            writer.close()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        running.add(asyncio.ensure_future(converse(reader, writer)))

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls, backlog=1024)
    gateway.port = server.sockets[0].getsockname()[1]
    try:
        yield gateway
    finally:
        server.close()
        for task in running:
            task.cancel()
        ended = await asyncio.gather(*running, return_exceptions=True)
    for error in ended:
        if isinstance(error, Exception):
            raise error


@contextlib.asynccontextmanager
async def calling(script: Script, **options: Any) -> AsyncGenerator[tuple[Upstream, RawGateway]]:
    """An upstream whose gateway runs `script`; options are those of `Upstream`."""
    async with serve(script) as gateway:
        upstream = Upstream("default", gateway.url, options.pop("api_key", lambda: KEY), **options)
        try:
            yield upstream, gateway
        finally:
            await upstream.aclose()


def replies(*answers: bytes) -> Script:
    """Answers the requests of a connection in turn, byte for byte as given, then closes it."""

    async def script(peer: Conversation) -> None:
        for answer in answers:
            await peer.request()
            await peer.send(answer)

    return script


def head(*headers: str, status: str = "200 OK", kind: str = "application/json") -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", f"content-type: {kind}", *headers, "", ""]).encode()


def plain(body: bytes, *headers: str, status: str = "200 OK", kind: str = "application/json") -> bytes:
    return head(f"content-length: {len(body)}", *headers, status=status, kind=kind) + body


def chunked(*pieces: bytes, kind: str = "text/event-stream") -> bytes:
    return head("transfer-encoding: chunked", kind=kind) + b"".join(map(chunk, (*pieces, b"")))


def chunk(piece: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(piece), piece)


def gzipped(body: bytes, kind: str = "application/json") -> bytes:
    return plain(gzip.compress(body), "content-encoding: gzip", kind=kind)


def event(data: bytes, name: str = "") -> bytes:
    lines = b"".join(b"data: %s\n" % line for line in data.split(b"\n"))
    return (f"event: {name}\n".encode() if name else b"") + lines + b"\n"


def terminal(response: bytes = RESPONSE, kind: str = "response.completed") -> bytes:
    """The data of a terminal event around `response`, with members before and after it."""
    return b'{"type":"%s" , "sequence_number":7,"response" : %s,"x":{"response":1}}' % (kind.encode(), response)


def error_body(code: str) -> bytes:
    return orjson.dumps({"error": {"code": code, "message": "no"}})
