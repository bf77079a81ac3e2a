"""A connection on which Redis tells of changed keys while it also answers commands (RESP3, `CLIENT TRACKING`).

(redis.io/docs/latest/develop/reference/client-side-caching)
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

import redis.asyncio
from redis.exceptions import ConnectionError as Disconnected
from redis.exceptions import NoScriptError, ResponseError

from worker.storage.commands import Argument, Command, Row, Script, together
from worker.storage.connection import SOCKET_TIMEOUT_S
from worker.storage.parts import sha_of

R = TypeVar("R")
Changed = Callable[[Sequence[str] | None], None]
"""Hears the names of changed keys; None stands for all, after a flush."""

_NEWS: Final = object()
_OWN: Final[Mapping[str, Any]] = {
    "protocol": 3,
    "health_check_interval": 0,  # its ping would take a reply that is another's
    "socket_timeout": None,
    "client_name": "responses-worker-news",
}


class NewsLine:
    """One connection: replies go to who asked, in order, and news to `changed`."""

    def __init__(self, connection: Any, changed: Changed) -> None:
        self._connection = connection
        self._changed = changed
        self._owed: deque[asyncio.Future[Any]] = deque()
        self._ended = False
        # redis-py awaits this for each `invalidate` and returns what it returns; there is no public way to it
        connection._parser.set_invalidation_push_handler(self._hear)  # noqa: SLF001

    async def call(self, *words: str | bytes | float, within_s: float = SOCKET_TIMEOUT_S) -> Any:
        """The reply. Raises ResponseError where Redis refuses, TimeoutError, and what ended the connection."""
        if self._ended or not self._connection.is_connected:  # redis-py would connect again, and be told nothing
            raise Disconnected("the line has ended")
        reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._owed.append(reply)
        async with asyncio.timeout(within_s):
            await self._connection.send_command(*words)
            return await reply

    async def run(
        self, script: Script, command: Command[R], keys: Mapping[str, str], rows: Sequence[Row] = (), **args: Argument
    ) -> R:
        """A script command's reply; from now on there is news of the keys that it read."""
        text, words = script.text_for(command), together([command.words(keys, args, rows)])
        try:
            reply = await self.call("EVALSHA", sha_of(text), *words)
        except NoScriptError:
            reply = await self.call("EVAL", text, *words)
        return command.reply(reply)

    async def read(self) -> None:
        """Hands out what comes until the connection ends. Raises RedisError or OSError then."""
        try:
            while True:
                try:
                    reply = await self._connection.read_response(push_request=True)
                except ResponseError as refused:
                    self._next().set_exception(refused)
                else:
                    if reply is not _NEWS:
                        self._next().set_result(reply)
        except BaseException as ended:
            self._ended = True
            self._changed(None)  # whoever waits for news is to find out
            for waiting in self._owed:
                if not waiting.done():
                    waiting.set_exception(Disconnected(type(ended).__name__))
            raise

    def _next(self) -> "asyncio.Future[Any]":
        reply = self._owed.popleft()
        return asyncio.Future() if reply.done() else reply  # the caller gave up

    async def _hear(self, push: Sequence[Any]) -> object:
        """redis-py swallows what is raised in here, so nothing of ours runs in here."""
        keys: Sequence[bytes] | None = push[1]
        names = None if keys is None else [key.decode(errors="replace") for key in keys]
        asyncio.get_running_loop().call_soon(self._changed, names)
        return _NEWS


@asynccontextmanager
async def news_line(client: redis.asyncio.Redis, changed: Changed, *tracking: str) -> AsyncGenerator[NewsLine]:
    """A line with `CLIENT TRACKING ON <tracking>`, to the server of `client`, for as long as the block runs.

    Raises ResponseError where the server refuses; RedisError, OSError or TimeoutError where it cannot be reached, also
    in the block once the connection ends.
    """
    pool: Any = client.connection_pool
    connection = pool.connection_class(**(pool.connection_kwargs | _OWN))
    try:
        async with asyncio.timeout(SOCKET_TIMEOUT_S):
            await connection.connect()
        line = NewsLine(connection, changed)
        reading = asyncio.create_task(line.read())
        try:
            await line.call("CLIENT", "TRACKING", "ON", *tracking)
            yield line
        finally:
            reading.cancel()
            await asyncio.wait([reading])
    finally:
        await connection.disconnect(nowait=True)
