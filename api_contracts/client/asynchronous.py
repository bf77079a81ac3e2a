"""The driver for an event loop: performs the steps of the client over `redis.asyncio`.

All that wait share one connection per cell: a task reads it, and pairs replies and pushes with who waits for them.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, Self, TypeVar

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from api_contracts.client.effects import (
    Ask,
    ClosedError,
    Command,
    Effect,
    Emit,
    Look,
    LostError,
    Notice,
    Replies,
    Running,
    Steps,
    Wait,
)
from api_contracts.client.watching import (
    CHECK_S,
    PING,
    REFUSED,
    REPLY_S,
    TRACKING,
    Pushed,
    Watched,
    checked,
    own_options,
    paces,
    wire,
)

T = TypeVar("T")

WIND_UP_S: Final = 2.0
"""The longest that a reader who was cancelled takes to hand back what it has read."""

_GONE: Final = (RedisConnectionError, RedisTimeoutError, OSError)
_log: Final = logging.getLogger(__name__)


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
            await self.look(Notice(), [TRACKING])
        except ResponseError:
            await self.close()
            raise

    @property
    def is_open(self) -> bool:
        return self._reading is not None and not self._reading.done()

    async def look(self, notice: Notice, commands: Sequence[Command]) -> Replies:
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
            await self.look(Notice(), [PING])

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


@dataclass(slots=True)
class Cell:
    """One Redis."""

    client: Any
    pushes: bool = True
    """False where Redis refuses to push: then waiting is looking now and again."""
    _link: Link | None = None
    _opening: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def ask(self, ask: Ask) -> Replies:
        pipeline = self.client.pipeline(transaction=False)
        for command in ask.commands:
            pipeline.execute_command(*wire(command), NEVER_DECODE=True)
        replies = await pipeline.execute(raise_on_error=False)
        return checked(replies, errors_as_replies=ask.errors_as_replies)

    async def link(self) -> Link | None:
        """The connection that pushes; None where there is none. Raises LostError."""
        async with self._opening:
            if self._link and self._link.is_open:
                return self._link
            try:
                link = Link(self.client.connection_pool) if self.pushes else None
                if link:
                    await link.open()
            except ResponseError as refused:
                self.pushes, link = False, None
                _log.warning(REFUSED, refused)
            self._link = link
            return link

    async def close(self) -> None:
        if self._link:
            await self._link.close()


class Driver:
    """Performs steps over the cells. For the tasks of one event loop."""

    def __init__(self, clients: Sequence[Any]) -> None:
        self._cells = [Cell(client) for client in clients]

    @property
    def block_s(self) -> float:
        """The longest blocking read: shorter than any client waits for a reply."""
        timeouts = [cell.client.connection_pool.connection_kwargs.get("socket_timeout") for cell in self._cells]
        return min([1.0, *(timeout / 2 for timeout in timeouts if timeout)])

    async def run(self, steps: Steps[T]) -> T:
        running = Running(steps)
        with _Session(self._cells) as session:
            while (effect := running.advance()) is not None:
                await session.perform(effect, running)
        return running.value

    async def iterate(self, steps: Steps[None]) -> AsyncGenerator[Any]:
        running = Running(steps)
        with _Session(self._cells) as session:
            try:
                while (effect := running.advance()) is not None:
                    if isinstance(effect, Emit):
                        yield effect.value
                    else:
                        await session.perform(effect, running)
            except (GeneratorExit, asyncio.CancelledError):
                with suppress(Exception):  # the reader is leaving, and what is not tidied up now is found in a minute
                    await asyncio.shield(session.wind_up(running))
                raise

    async def close(self) -> None:
        for cell in self._cells:
            await cell.close()


class _Session:
    """The connections and notices of one call."""

    def __init__(self, cells: Sequence[Cell]) -> None:
        self._cells = cells
        self._links: dict[int, Link] = {}
        self._notices: set[Notice] = set()
        self._paces: Iterator[float] = paces()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for link in self._links.values():
            for notice in self._notices:
                link.forget(notice)

    async def perform(self, effect: Effect, running: Running[Any]) -> None:
        try:
            running.outcome = await self._performed(effect)
        except Exception as error:  # noqa: BLE001  # the steps decide about it
            running.error = error

    async def wind_up(self, running: Running[Any]) -> None:
        running.error = ClosedError()
        async with asyncio.timeout(WIND_UP_S):
            while (effect := running.advance()) is not None:
                await self.perform(effect, running)

    async def _performed(self, effect: Effect) -> Any:
        match effect:
            case Ask():
                return await self._cells[effect.cell].ask(effect)
            case Look():
                return await self._look(effect)
            case Wait():
                return await self._wait(effect.notice, time.monotonic() + effect.timeout_s)
            case Emit():
                raise TypeError("these steps are to be iterated")

    async def _look(self, look: Look) -> Replies:
        link = await self._cells[look.cell].link()
        self._notices.add(look.notice)
        if link is None:
            look.notice.keys.update(key for _, key, *_ in look.commands)
            return await self._cells[look.cell].ask(Ask(look.commands))
        self._links[look.cell] = link
        return await link.look(look.notice, look.commands)

    async def _wait(self, notice: Notice, give_up_at: float) -> None:
        told = asyncio.Event()
        notice.wake = told.set
        while not notice.changed and (left_s := give_up_at - time.monotonic()) > 0:
            polls = bool(notice.keys) and not all(cell.pushes for cell in self._cells)
            with suppress(TimeoutError):
                async with asyncio.timeout(min(next(self._paces) if polls else CHECK_S, left_s)):
                    await told.wait()
            if polls:
                notice.tell(*notice.keys)
            elif notice.keys:
                await self._check(notice)

    async def _check(self, notice: Notice) -> None:
        for link in self._links.values():
            try:
                await link.check()
            except LostError:
                notice.tell(*notice.keys)
