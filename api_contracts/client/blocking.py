"""The driver for threads: performs the steps of the client over redis-py's blocking client.

A thread that waits has a connection of its own while it waits, so that threads share no state; idle ones are kept.
"""

import logging
import os
import selectors
import threading
import time
from collections.abc import Generator, Iterator, Sequence
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

IDLE_LINKS: Final = 16
"""Connections of threads that waited, kept for the next ones."""

_GONE: Final = (RedisConnectionError, RedisTimeoutError, OSError)
_log: Final = logging.getLogger(__name__)


class Link:
    """One tracking connection, used by one thread at a time."""

    def __init__(self, pool: Any) -> None:
        self.pid = os.getpid()
        self._watched, self._heard_at = Watched(), time.monotonic()
        self._connection: Any = pool.connection_class(**own_options(pool) | {"socket_timeout": REPLY_S})
        try:
            self._connection.connect()
        except _GONE as error:
            raise LostError from error
        parser = self._connection._parser  # noqa: SLF001  # redis-py has no public way to hear of what changed
        parser.set_invalidation_push_handler(Pushed.of)
        self.look(None, [TRACKING])

    @property
    def socket(self) -> Any:
        """None once the connection is lost."""
        return self._connection._sock  # noqa: SLF001  # to wait for several connections at once

    def look(self, notice: Notice | None, commands: Sequence[Command]) -> Replies:
        if self.socket is None:  # redis-py would connect anew, and track nothing
            raise LostError
        try:
            self._connection.send_packed_command(self._connection.pack_commands(commands), check_health=False)
            looking = self._watched.asked(commands, notice)
            while not looking.is_over:
                self._read()
        except _GONE as error:
            raise LostError from error
        return looking.outcome()

    def hear(self, timeout_s: float) -> None:
        """Returns once all was read that is there, or the time is up. Raises LostError."""
        try:
            wait_s = min(timeout_s, CHECK_S)
            while self._connection.can_read(wait_s):
                self._read()
                wait_s = 0
        except _GONE as error:
            raise LostError from error
        if time.monotonic() - self._heard_at >= CHECK_S:
            self.look(None, [PING])

    def forget(self, notice: Notice) -> None:
        self._watched.forget(notice)

    def close(self) -> None:
        self._connection.disconnect()

    def _read(self) -> None:
        try:
            said = self._connection.read_response(disable_decoding=True, push_request=True)
        except ResponseError as refused:
            said = refused
        self._heard_at = time.monotonic()
        self._watched.heard(said)


@dataclass(slots=True)
class Cell:
    """One Redis."""

    client: Any
    pushes: bool = True
    """False where Redis refuses to push: then waiting is looking now and again."""
    _idle: list[Link] = field(default_factory=list[Link])

    def ask(self, ask: Ask) -> Replies:
        pipeline = self.client.pipeline(transaction=False)
        for command in ask.commands:
            pipeline.execute_command(*wire(command), NEVER_DECODE=True)
        return checked(pipeline.execute(raise_on_error=False), errors_as_replies=ask.errors_as_replies)

    def link(self) -> Link | None:
        """A connection that pushes; None where there are none. Raises LostError."""
        while self._idle:
            with suppress(IndexError):  # another thread was quicker
                link = self._idle.pop()
                if (
                    link.pid == os.getpid() and link.socket is not None
                ):  # a fork shares the sockets of its parent, and must not use them
                    return link
        try:
            return Link(self.client.connection_pool) if self.pushes else None
        except ResponseError as refused:
            self.pushes = False
            _log.warning(REFUSED, refused)
            return None

    def put_back(self, link: Link) -> None:
        if link.socket is not None and len(self._idle) < IDLE_LINKS:
            self._idle.append(link)
        else:
            link.close()

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()


class Driver:
    """Performs steps over the cells. Safe to share between threads."""

    def __init__(self, clients: Sequence[Any]) -> None:
        self._cells = [Cell(client) for client in clients]

    @property
    def block_s(self) -> float:
        """The longest blocking read: shorter than any client waits for a reply."""
        timeouts = [cell.client.connection_pool.connection_kwargs.get("socket_timeout") for cell in self._cells]
        return min([1.0, *(timeout / 2 for timeout in timeouts if timeout)])

    def run(self, steps: Steps[T]) -> T:
        running = Running(steps)
        with _Session(self._cells) as session:
            while (effect := running.advance()) is not None:
                session.perform(effect, running)
        return running.value

    def iterate(self, steps: Steps[None]) -> Generator[Any]:
        running = Running(steps)
        with _Session(self._cells) as session:
            try:
                while (effect := running.advance()) is not None:
                    if isinstance(effect, Emit):
                        yield effect.value
                    else:
                        session.perform(effect, running)
            except GeneratorExit:
                with suppress(Exception):  # the reader is leaving, and what is not tidied up now is found in a minute
                    session.wind_up(running)
                raise

    def close(self) -> None:
        for cell in self._cells:
            cell.close()


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
        for cell, link in self._links.items():
            for notice in self._notices:
                link.forget(notice)
            self._cells[cell].put_back(link)

    def perform(self, effect: Effect, running: Running[Any]) -> None:
        try:
            running.outcome = self._performed(effect)
        except Exception as error:  # noqa: BLE001  # the steps decide about it
            running.error = error

    def wind_up(self, running: Running[Any]) -> None:
        running.error = ClosedError()
        while (effect := running.advance()) is not None:
            self.perform(effect, running)

    def _performed(self, effect: Effect) -> Any:
        match effect:
            case Ask():
                return self._cells[effect.cell].ask(effect)
            case Look():
                return self._look(effect)
            case Wait():
                return self._wait(effect.notice, time.monotonic() + effect.timeout_s)
            case Emit():
                raise TypeError("these steps are to be iterated")

    def _look(self, look: Look) -> Replies:
        link = self._links.get(look.cell) or self._cells[look.cell].link()
        self._notices.add(look.notice)
        if link is None:
            look.notice.keys.update(key for _, key, *_ in look.commands)
            return self._cells[look.cell].ask(Ask(look.commands))
        self._links[look.cell] = link
        try:
            return link.look(look.notice, look.commands)
        except LostError:
            self._drop(look.cell, look.notice)
            raise

    def _wait(self, notice: Notice, give_up_at: float) -> None:
        if not notice.keys:  # another thread tells, or nobody does
            told = threading.Event()
            notice.wake = told.set
            if not notice.changed:
                told.wait(give_up_at - time.monotonic())
            return
        while not notice.changed and (left_s := give_up_at - time.monotonic()) > 0:
            if all(cell.pushes for cell in self._cells):
                self._hear(notice, left_s)
            else:
                time.sleep(min(next(self._paces), left_s))
                notice.tell(*notice.keys)

    def _hear(self, notice: Notice, timeout_s: float) -> None:
        if len(self._links) > 1:
            with selectors.DefaultSelector() as said:
                for link in self._links.values():
                    said.register(link.socket, selectors.EVENT_READ)
                said.select(min(timeout_s, CHECK_S))
            timeout_s = 0
        for cell, link in list(self._links.items()):
            try:
                link.hear(timeout_s)
            except LostError:
                self._drop(cell, notice)

    def _drop(self, cell: int, notice: Notice) -> None:
        self._links.pop(cell).close()
        notice.tell(*notice.keys)
