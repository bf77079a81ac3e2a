"""One call of `POST /v1/responses` as a value: what became of it is an `Answer` or a `Failure`, no exception.

It speaks httpx's transport interface, and `transport.py` works aiohttp beneath it: httpx's own pool looks at every
connection for every request, ten times the CPU at a thousand calls in flight (encode/httpx #3215).

**What a broken call means follows from how far it got**, which `sessions.py` notes. The exceptions cannot
tell: aiohttp says "server disconnected" whether or not the body had left.

| phase      | ends with                          | the connection was lost | time was up     |
|------------|------------------------------------|-------------------------|-----------------|
| CONNECTING | a connection, new or kept          | UNREACHABLE             | CONNECT_TIMEOUT |
| SENDING    | the request wholly with the kernel | UNREACHABLE             | WRITE_TIMEOUT   |
| WAITING    | status and headers of the answer   | RESET, or STALE         | TOTAL_TIMEOUT   |
| READING    | the end of the answer              | CUT_SHORT               | READ_TIMEOUT    |

A server runs no request whose last bytes it does not have, so the first two phases cost nothing. The last two
may be billed. STALE is the race of a kept connection that the peer closes while we write to it: nothing was
read, and the end came at once. It is nearly always free, and is told apart from a server that died over a
request on a fresh connection. Silence while WAITING is a model thinking, which only the call's own timeout
ends. There is no pool limit, so nothing to wait for.
"""

import asyncio
import contextlib
import functools
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

import httpx

from api_contracts.errors import ErrorCode
from worker import __version__
from worker.failures.error_reader import request_id
from worker.failures.failure import Failure
from worker.gateway.answers import Answer
from worker.gateway.exchange import LOST, Exchange, now
from worker.gateway.key_guard import guard_of
from worker.gateway.sessions import Progress, progress
from worker.gateway.transport import SessionTransport

__all__ = ["Answer", "Call", "Upstream"]

MAX_ANSWER_BYTES: Final = 16 * 1024 * 1024  # the longest answers have a few MiB
STEP_BYTES: Final = 256 * 1024  # larger bodies are written in steps, between which other calls run

_NO_KEY: Final = replace(
    Failure.of(ErrorCode.AUTHENTICATION_FAILED), message="The API key is missing or cannot be read."
)
_KEPT_HEADERS: Final = ("x-ratelimit-", "retry-after", "x-should-retry")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One finished call. `http_status` is None if no answer began.

    `headers` are lower-cased, and only `x-ratelimit-*`, `retry-after*` and `x-should-retry`.
    """

    outcome: Answer | Failure
    http_status: int | None
    upstream_request_id: str | None
    duration_ms: int
    headers: Mapping[str, str]


class Upstream:
    """An OpenAI-compatible gateway under one credential; calls in flight are not limited here.

    `base_url` may end in `/v1` or not. `api_key` is asked for every call, so that a mounted secret may
    change, and its value is kept nowhere. `connect_s` covers name lookup, TCP and TLS; `write_s` the whole
    request; `silence_s` the silence between two pieces of an answer that has begun, None for as long as the
    call may take. An answer, or one event, of more than `max_answer_bytes` is refused. `proxy` is the URL of an HTTP
    proxy that every call goes through.
    """

    def __init__(
        self,
        name: str,
        base_url: str,
        api_key: Callable[[], str],
        *,
        connect_s: float = 10.0,
        write_s: float = 30.0,
        silence_s: float | None = None,
        max_answer_bytes: int = MAX_ANSWER_BYTES,
        ssl_context: ssl.SSLContext | None = None,
        proxy: str = "",
    ) -> None:
        self.name = name
        self._url = _endpoint(base_url)
        self._api_key = api_key
        self._write_s = write_s
        self._silence_s = silence_s
        self._max_answer_bytes = max_answer_bytes
        self._headers = httpx.Headers(
            {
                "host": self._url.netloc.decode(),
                "user-agent": f"responses-worker/{__version__}",
                "accept-encoding": "gzip, deflate",
                "content-type": "application/json",
            }
        )
        self._transport = SessionTransport(ssl_context or _shared_ssl_context(), connect_s=connect_s, proxy=proxy)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(name={self.name!r}, url={str(self._url)!r})"

    async def create(
        self, body: bytes, *, stream: bool, timeout_s: float, on_event: Callable[[bytes], None] | None = None
    ) -> Call:
        """Send `body` as it is and read the answer to its end, within `timeout_s` in all.

        `stream` says whether `body` asks for events; an answer in the other form is understood. `on_event`
        gets the data of every event that is a JSON object, the terminal one included, and must not raise.
        Raises nothing but `asyncio.CancelledError`, and then the connection is closed at once.
        """
        started = time.monotonic()
        key = _usable_key(self._api_key)
        exchange = Exchange(
            progress=Progress(self._write_s),
            limit=asyncio.timeout(timeout_s),
            deadline=now() + timeout_s,
            silence_s=self._silence_s,
            max_bytes=self._max_answer_bytes,
            guard=guard_of(key or ""),
            on_event=on_event or (lambda _: None),
        )
        outcome = _NO_KEY if key is None else await self._perform(exchange, body, key, stream=stream)
        return Call(
            outcome=outcome,
            http_status=exchange.status or None,
            upstream_request_id=request_id(exchange.headers),
            duration_ms=round((time.monotonic() - started) * 1000),
            headers={k: v for k, v in exchange.headers.items() if k.startswith(_KEPT_HEADERS)},
        )

    async def aclose(self) -> None:
        """Close every connection; calls still in flight end as lost, later ones as never sent."""
        await self._transport.aclose()

    async def _perform(self, exchange: Exchange, body: bytes, key: str, *, stream: bool) -> Answer | Failure:
        if self._transport.is_closed:
            return exchange.broken()
        request = self._request(body, f"Bearer {key}", stream=stream)
        mark = progress.set(exchange.progress)
        try:
            answered = self._transport.handle_async_request(request)
            async with exchange.limit, contextlib.aclosing(await answered) as response:
                return await exchange.read(response)
        except LOST as error:
            return exchange.broken(error, time_up=isinstance(error, TimeoutError))
        finally:
            progress.reset(mark)

    def _request(self, body: bytes, authorization: str, *, stream: bool) -> httpx.Request:
        headers = self._headers.copy()
        headers["authorization"] = authorization
        headers["content-length"] = str(len(body))
        headers["accept"] = "text/event-stream" if stream else "application/json"
        content = body if len(body) <= STEP_BYTES else _in_steps(body)
        return httpx.Request("POST", self._url, content=content, headers=headers)


def _endpoint(base_url: str) -> httpx.URL:
    try:
        url = httpx.URL(base_url)
        url.raw_host.decode().encode("idna")  # as name lookup will, in the midst of a call
    except (httpx.InvalidURL, UnicodeError):
        url = httpx.URL()
    if url.scheme not in {"http", "https"} or not url.host or url.userinfo:
        raise ValueError("an upstream URL is http(s)://host[:port][/path], without credentials")
    return url.copy_with(path=url.path.rstrip("/").removesuffix("/v1") + "/v1/responses")


def _usable_key(api_key: Callable[[], str]) -> str | None:
    """The key as it stands now; None if there is none, or one that no header can carry."""
    try:
        key = api_key().strip()
    except OSError:
        return None
    return key if key and key.isascii() and key.isprintable() else None


async def _in_steps(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), STEP_BYTES):
        yield body[start : start + STEP_BYTES]


@functools.cache
def _shared_ssl_context() -> ssl.SSLContext:
    """Loading the certificates takes 20 ms and a megabyte; SSL_CERT_FILE and SSL_CERT_DIR are honoured."""
    return httpx.create_ssl_context()
