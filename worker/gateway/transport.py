"""httpx's transport interface over our aiohttp session: `AsyncClient`, left out, is half of a call's CPU.

Its requests and responses are httpx's. Its errors are aiohttp's own, which tell a lost connection from time that is up.
"""

import ssl
from collections.abc import AsyncIterator

import aiohttp
import httpx
from multidict import CIMultiDict
from yarl import URL

from worker.gateway.sessions import open_session


class SessionTransport(httpx.AsyncBaseTransport):
    """Sends requests through one session, which opens with the first; `proxy` may hold a name and a password."""

    def __init__(self, ssl_context: ssl.SSLContext, *, connect_s: float, proxy: str = "") -> None:
        self._ssl_context = ssl_context
        self._connect_s = connect_s
        self._proxy = URL(proxy) if proxy else None
        self._session: aiohttp.ClientSession | None = None

    @property
    def is_closed(self) -> bool:
        """Whether it was closed; before the first request it is not."""
        return self._session is not None and self._session.closed

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """The head of the answer; closing the response closes a connection that still owes a part of it.

        Raises aiohttp's errors.
        """
        if self._session is None:
            self._session = open_session(self._ssl_context, connect_s=self._connect_s)
        answer = await self._session.request(
            request.method,
            URL(str(request.url), encoded=True),
            headers=CIMultiDict([(name.decode(), value.decode()) for name, value in request.headers.raw]),
            data=_content(request),
            allow_redirects=False,
            auto_decompress=False,
            proxy=self._proxy,
        )
        return httpx.Response(answer.status, headers=answer.raw_headers, stream=_Body(answer), request=request)

    async def aclose(self) -> None:
        """Closes every connection, and refuses later requests."""
        if self._session is None:
            self._session = open_session(self._ssl_context, connect_s=self._connect_s)
        await self._session.close()


class _Body(httpx.AsyncByteStream):
    """The body as it comes."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self._answer = answer

    def __aiter__(self) -> AsyncIterator[bytes]:
        return aiter(self._answer.content.iter_any())

    async def aclose(self) -> None:
        self._answer.release()
        await self._answer.wait_for_close()


def _content(request: httpx.Request) -> bytes | AsyncIterator[bytes]:
    try:
        return request.content
    except httpx.RequestNotRead:
        return aiter(request.stream)  # pyright: ignore[reportArgumentType]  # we send async streams only
