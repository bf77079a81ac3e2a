"""A connection of an event loop that is told of changes."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Final

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from api_contracts.client.effects import Command, LostError, Notice, Replies
from api_contracts.client.watching import CHECK_S, PING, REPLY_S, TRACKING, Pushed, Watched, own_options

_GONE: Final = (RedisConnectionError, RedisTimeoutError, OSError)


async def _pushed(push: Sequence[Any]) -> Pushed:  # redis-py awaits it
    return Pushed.of(push)


class Link:
    """One tracking connection, shared by all who wait on one loop."""

    def __init__(self, pool: Any) -> None:
        self._watched, self._heard_at = Watched(), time.monotonic()
        self._connection: Any = pool.connection_class(**own_options(pool))
        self._reading: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Raises LostError, and ResponseError where Redis refuses."""
        try:
            async with asyncio.timeout(REPLY_S):
                await self._connection.connect()
        except _GONE as error:
            raise LostError from error
        parser = self._connection._parser  # noqa: SLF001  # redis-py has no public way to hear of what changed
        parser.set_invalidation_push_handler(_pushed)
        self._reading = asyncio.create_task(self._read())
        try:
            await self.look(None, [TRACKING])
        except ResponseError:
            await self.close()
            raise

    @property
    def is_open(self) -> bool:
        return self._reading is not None and not self._reading.done()

    async def look(self, notice: Notice | None, commands: Sequence[Command]) -> Replies:
        if not self.is_open:
            raise LostError
        looking, over = self._watched.asked(commands, notice), asyncio.Event()
        looking.done = over.set
        try:
            async with asyncio.timeout(REPLY_S):
                packed = self._connection.pack_commands(commands)
                await self._connection.send_packed_command(packed, check_health=False)
                await over.wait()
        except _GONE as error:
            await self.close()
            raise LostError from error
        return looking.outcome()

    async def check(self) -> None:
        """Raises LostError where the connection was silent for long and does not answer."""
        if time.monotonic() - self._heard_at >= CHECK_S:
            await self.look(None, [PING])

    def forget(self, notice: Notice) -> None:
        self._watched.forget(notice)

    async def close(self) -> None:
        if self._reading:
            self._reading.cancel()
            await asyncio.wait([self._reading])
        await self._connection.disconnect()

    async def _read(self) -> None:
        try:
            while True:
                try:
                    said = await self._connection.read_response(disable_decoding=True, push_request=True)
                except ResponseError as refused:
                    said = refused
                self._heard_at = time.monotonic()
                self._watched.heard(said)
        except _GONE as error:
            lost = LostError()
            lost.__cause__ = error
            self._watched.lost(lost)
        except asyncio.CancelledError:
            self._watched.lost(LostError())
            raise
