"""The aiohttp session beneath `upstream.py`: many connections, and a request that notes how far it got.

aiohttp has no write timeout, and its exceptions do not tell whether a request had left when its connection
broke. Both follow from the one place that knows when the body begins and when the kernel has its last bytes.
"""

import asyncio
import functools
import socket
import ssl
from contextvars import ContextVar
from dataclasses import dataclass
from enum import IntEnum, auto
from typing import Any, Final

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from aiohttp.connector import Connection

from worker.gateway.heads import MAX_HEAD_BYTES, TolerantHandler

KEEP_IDLE_S: Final = 15.0
"""Below the idle timeouts of common proxies (60 s and up): we close first, and rarely write into a close."""
KEEPALIVE_PROBES: Final = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}
"""In seconds and a count: NAT forgets silent connections (AWS after 350 s), and a model may think longer."""


class Phase(IntEnum):
    """Progress of an exchange; its connection may be new or kept from before."""

    CONNECTING = auto()
    SENDING = auto()
    WAITING = auto()
    """The kernel has the whole request: from here on it may run, and be billed."""
    READING = auto()
    """Status and headers of the answer are here."""


@dataclass(slots=True)
class Progress:
    """Filled in by the request of the context that holds it."""

    write_s: float
    phase: Phase = Phase.CONNECTING
    kept: bool = False
    """Whether the connection had carried a request before this one."""
    sent: float = 0.0
    """When the kernel had the whole request, by the loop's clock."""


progress: ContextVar[Progress] = ContextVar("progress")
"""Set one before each request: aiohttp passes nothing of ours down to its connections."""


class WatchedRequest(aiohttp.ClientRequest):
    """Advances the context's `Progress` and gives up after its `write_s`, as `aiohttp.ServerTimeoutError`."""

    async def write_bytes(
        self, writer: AbstractStreamWriter, conn: Connection, content_length: int | None = None
    ) -> None:
        """Send the body. Like its base, reports every error to the reader of the answer and raises none."""
        sending, protocol, transport = progress.get(), conn.protocol, conn.transport
        if protocol is None or transport is None:
            return  # the connection is gone, and whoever waits for the answer knows
        sending.phase = Phase.SENDING
        sending.kept = isinstance(protocol, TolerantHandler) and protocol.uses > 1
        try:
            async with asyncio.timeout(sending.write_s):
                await super().write_bytes(writer, conn, content_length)
        except TimeoutError:
            protocol.set_exception(aiohttp.ServerTimeoutError("the peer does not take the request"))
            transport.abort()
        except asyncio.CancelledError:
            transport.abort()  # close() would wait until the peer takes what it has not taken so far
            raise
        except Exception as error:  # noqa: BLE001  # the reader would wait for an answer to what never left
            protocol.set_exception(aiohttp.ClientConnectionError(type(error).__name__))
            transport.abort()
        if sending.phase is Phase.SENDING and protocol.exception() is None:
            sending.phase, sending.sent = Phase.WAITING, self.loop.time()


class TolerantConnector(aiohttp.TCPConnector):
    """Makes connections that read heads as `heads.py` says; aiohttp has no public place to say so."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)  # pyright: ignore[reportUnknownMemberType]  # of a socket factory's addresses
        self._factory = functools.partial(TolerantHandler, loop=self._loop)


def open_session(ssl_context: ssl.SSLContext, *, connect_s: float | None = None) -> aiohttp.ClientSession:
    """A session without aiohttp's limit of 100 connections, which caps concurrency silently.

    `connect_s` covers name lookup, TCP and TLS. Cookies are not kept: a load balancer's would tie all calls to one
    backend.
    """
    return aiohttp.ClientSession(
        connector=TolerantConnector(
            limit=0, keepalive_timeout=KEEP_IDLE_S, ssl=ssl_context, socket_factory=_open_socket
        ),
        max_line_size=MAX_HEAD_BYTES,
        max_field_size=MAX_HEAD_BYTES,
        cookie_jar=aiohttp.DummyCookieJar(),
        request_class=WatchedRequest,
        timeout=aiohttp.ClientTimeout(total=None, connect=connect_s, sock_connect=connect_s),
        trust_env=False,
    )


def _open_socket(address: tuple[int, int, int, str, tuple[object, ...]]) -> socket.socket:
    """A socket that notices within a minute that its peer is gone."""
    opened = socket.socket(*address[:3])
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEPALIVE_PROBES.items():
        if hasattr(socket, name):  # not on every system
            opened.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return opened
