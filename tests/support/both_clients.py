"""Both clients behind one face, so that a test says once what both must do."""

import asyncio
import inspect
import threading
from collections.abc import AsyncGenerator, Generator
from contextlib import contextmanager
from typing import Any, cast

from api_contracts.client import AsyncResponsesClient, ResponsesClient


class Loop:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, awaitable: Any) -> Any:
        async def awaited() -> Any:
            return await awaitable

        return asyncio.run_coroutine_threadsafe(awaited(), self._loop).result()

    def call(self, function: Any, *args: Any, **named: Any) -> Any:
        """On the loop, where an asynchronous client belongs; what it returns is waited for, or iterated."""

        async def called() -> Any:
            result = function(*args, **named)
            return await result if inspect.isawaitable(result) else result

        result = self.run(called())
        return self._iterated(cast("AsyncGenerator[Any]", result)) if inspect.isasyncgen(result) else result

    def _iterated(self, values: "AsyncGenerator[Any]") -> Generator[Any]:
        try:
            while True:
                try:
                    value = self.run(anext(values))
                except StopAsyncIteration:
                    return
                yield value
        finally:
            self.run(values.aclose())

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class Bridged:
    """An AsyncResponsesClient with the methods of ResponsesClient."""

    def __init__(self, loop: Loop, *args: Any, **named: Any) -> None:
        self._loop = loop
        self._client = loop.call(AsyncResponsesClient, *args, **named)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        def called(*args: Any, **named: Any) -> Any:
            return self._loop.call(method, *args, **named)

        return called


KINDS = ("blocking", "async")


@contextmanager
def opened(kind: str, redis: Any, **named: Any) -> Generator[Any]:
    """A client of either kind, closed at the end."""
    if kind == "blocking":
        with ResponsesClient(redis, **named) as client:
            yield client
        return
    loop = Loop()
    client = Bridged(loop, redis, **named)
    try:
        yield client
    finally:
        client.close()
        if hasattr(redis, "aclose"):  # the test's own client lives on this loop as well
            loop.run(redis.aclose())
        loop.close()
