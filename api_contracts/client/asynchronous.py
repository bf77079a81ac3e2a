"""The driver for an event loop: performs the steps of the client over `redis.asyncio`.

All that wait share one connection per cell: a task reads it, and pairs replies and pushes with who waits for them.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Coroutine, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, Self, TypeVar

from redis.exceptions import ResponseError

from api_contracts.client.async_link import Link
from api_contracts.client.effects import (
    Ask,
    ClosedError,
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
from api_contracts.client.watching import CHECK_S, REFUSED, checked, paces, wire

T = TypeVar("T")

WIND_UP_S: Final = 2.0
"""The longest that a reader who was cancelled takes to hand back what it has read."""

_log: Final = logging.getLogger(__name__)


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
        self._tidying: set[asyncio.Task[None]] = set()

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
                    await asyncio.shield(self._in_background(session.wind_up(running)))
                raise

    def _in_background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A task that outlives the one that waits for it, which may be cancelled more than once."""
        task = asyncio.create_task(work)
        self._tidying.add(task)
        task.add_done_callback(self._tidying.discard)
        return task

    async def close(self) -> None:
        await asyncio.gather(*self._tidying, return_exceptions=True)
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
