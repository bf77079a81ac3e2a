"""Sends script calls over one connection: what waits goes out in one round trip, what is lost is sent again.

Calls of one script share a run of it: reading a script costs Redis more than most commands in it.

Batches are packed by hiredis, written to redis-py's `Connection` and read from it one reply after the other, under one
limit. redis-py's `Pipeline` sets a timer for every reply and dispatches each by command name, a quarter of the CPU a
call costs. A busy sender keeps its connection, because taking one from the pool and giving it back costs another
quarter.
"""

import asyncio
import contextvars
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

import hiredis
import redis.asyncio
from redis.exceptions import NoScriptError, ReadOnlyError, RedisError, ResponseError

from worker.storage.commands import Words, together
from worker.storage.connection import SOCKET_TIMEOUT_S
from worker.storage.errors import ScriptError, kind_of, may_pass
from worker.storage.events import RedisEvents, Unheard
from worker.storage.gathering import RUN, Gathering, Pace
from worker.storage.parts import sha_of
from worker.storage.silence import unless_silent

BATCH: Final = 128
"""Calls per round trip: enough to make the fixed cost vanish, small enough to keep replies coming."""

BATCH_BYTES: Final = 1024 * 1024
"""A call that would take a batch above this waits for the next one: on a slow link replies come between batches."""

RETRY_S: Final = (0.05, 0.1, 0.2, 0.5, 1.0)
"""Pauses between tries while Redis cannot serve, or refuses a call; the last one repeats."""

_pack = cast("Callable[[tuple[bytes, ...]], bytes]", hiredis.pack_command)  # pyright: ignore[reportUnknownMemberType]  # its stub takes one word

FRESH_S: Final = 1.0
"""A connection that was idle for longer is looked at by the pool: the server may have closed it meanwhile."""


@dataclass(eq=False, slots=True)
class Call:
    """One call and the future of its reply; `text` is its script's, which leaves `first` or does not care."""

    text: str
    words: Words
    reply: "asyncio.Future[Any]"
    first: bool = False
    tries: int = 0
    size: int = field(init=False)

    def __post_init__(self) -> None:
        self.size = self.words.size


@dataclass(slots=True)
class Redis:
    """The server as all senders of a process see it: whether it serves, is told once, and once when it is back."""

    client: redis.asyncio.Redis
    events: RedisEvents = field(default_factory=Unheard)
    within_s: float = SOCKET_TIMEOUT_S
    """The longest silence of a peer, and the longest time to connect."""
    open: set[Call] = field(default_factory=set[Call])
    """Calls without a reply, whether they wait, are on their way, or were refused and will be sent again."""
    missing: set[str] = field(default_factory=set[str])
    """Scripts that the server does not have, as it said; it is believed to have all others."""
    cut_off: "set[Sender]" = field(default_factory=set["Sender"])
    """Senders whose last round trip failed."""
    pace: Pace = field(default_factory=Pace)
    _troubled: bool = False
    _told_at: float = -math.inf
    silent_at: float = -math.inf
    """The time at which a connection was last found silent; those that were not used since may be as well."""

    def failed(self, error: Exception, *, began: float) -> None:
        """An exchange failed that began at this time; one that began before the last trouble was told is part of it."""
        if not self._troubled and began > self._told_at:
            self._troubled = True
            self._told_at = time.monotonic()
            self.events.redis_lost(kind_of(error))

    def served(self) -> None:
        refused = any(call.tries and not call.reply.done() for call in self.open)
        if self._troubled and not refused and not self.cut_off:
            self._troubled = False
            self.events.redis_recovered()


@dataclass(eq=False, slots=True)
class Sender:
    """Sends one batch after the other, the next once every reply has come."""

    redis: Redis
    _waiting: deque[Call] = field(default_factory=deque[Call])
    _task: "asyncio.Task[None] | None" = None
    _connection: Any = None
    """An AbstractConnection of redis-py, whose replies have half a type."""
    _used_at: float = 0.0
    _gathering: Gathering = field(init=False)

    def __post_init__(self) -> None:
        self._gathering = Gathering(self.redis.pace)

    def send(self, call: Call) -> None:
        """Sets the call's reply, or its error, some time later."""
        self._waiting.append(call)
        if self._task is None or self._task.done():
            # A context of its own: the first caller's context would keep its execution, and its prompt, alive.
            self._task = asyncio.get_running_loop().create_task(self._run(), context=contextvars.Context())

    async def aclose(self) -> None:
        """Sends nothing more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        await self._let_go()

    async def _run(self) -> None:
        tries = 0
        while self._waiting:
            await asyncio.sleep(self._gathering.pause_s(len(self._waiting), time.monotonic()))
            batch = self._next_batch()
            if await self._send(batch):
                self._gathering.sent(len(batch), time.monotonic())
                tries = 0
                continue
            self._waiting.extendleft(reversed(batch))
            await asyncio.sleep(_pause_s(tries))
            tries += 1

    def _next_batch(self) -> list[Call]:
        batch: list[Call] = []
        size = 0
        while self._waiting and len(batch) < BATCH and (not batch or size + self._waiting[0].size <= BATCH_BYTES):
            call = self._waiting.popleft()
            if not call.reply.done():
                batch.append(call)
                size += call.size
        return batch

    async def _send(self, batch: list[Call]) -> bool:
        """Sends the batch once; False where Redis could not be reached and all of it must be sent again."""
        runs, began = list(_runs(batch)), time.monotonic()
        try:
            answers = await self._round_trip(runs)
        except (RedisError, OSError) as error:
            if may_pass(error):
                self.redis.cut_off.add(self)
                self.redis.failed(error, began=began)
                if isinstance(error, TimeoutError):
                    self.redis.silent_at = time.monotonic()
                    await self._leave_idle_connections()
                return False
            answers = [error] * len(runs)  # the script itself cannot be loaded
        self.redis.cut_off.discard(self)
        for run, answer in zip(runs, answers, strict=True):
            for call, reply in zip(run, _replies(run, answer), strict=True):
                self._settle(call, reply)
        if any(isinstance(answer, ReadOnlyError) for answer in answers):
            await self._let_go()
            await self._leave_idle_connections()
        self.redis.served()
        return True

    async def _leave_idle_connections(self) -> None:
        """For new ones: after a failover they lead to another server, and where one fell silent others did as well."""
        await self.redis.client.connection_pool.disconnect(inuse_connections=False)

    async def _round_trip(self, runs: Sequence[Sequence[Call]]) -> list[Any]:
        """The reply to each run, or Redis' error. Raises for a connection, or a script, that is no good."""
        connection = await self._connected()
        try:
            async with unless_silent(connection, self.redis.within_s):
                await self._load(connection, {run[0].text for run in runs} & self.redis.missing)
                await connection.send_packed_command([_packed(run) for run in runs])
                replies = [await _reply(connection) for _ in runs]
        except BaseException:
            await self._let_go()
            raise
        self._used_at = time.monotonic()
        return replies

    async def _connected(self) -> Any:
        """A connection that serves: the one of the last round trip, if that was just now."""
        if self._connection is not None and self._used_at < self.redis.silent_at:
            await self._connection.disconnect()
        if time.monotonic() - self._used_at > FRESH_S:
            await self._let_go()
        if self._connection is None:
            async with asyncio.timeout(self.redis.within_s):
                self._connection = await self.redis.client.connection_pool.get_connection()
        return self._connection

    async def _let_go(self) -> None:
        """Gives the connection back. If a reply is still owed, redis-py has closed it when reading was interrupted."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await self.redis.client.connection_pool.release(connection)

    async def _load(self, connection: Any, texts: set[str]) -> None:
        for text in texts:
            await connection.send_command("SCRIPT LOAD", text)
            await connection.read_response()
            self.redis.missing.discard(text)

    def _settle(self, call: Call, reply: Any) -> None:
        if call.reply.done():
            return  # the caller was cancelled meanwhile
        if isinstance(reply, NoScriptError):
            self.redis.missing.add(call.text)
            self.send(call)
        elif isinstance(reply, Exception) and may_pass(reply):
            self._try_later(call, reply)
        elif isinstance(reply, Exception):
            call.reply.set_exception(ScriptError(str(reply)[:200]))
        else:
            call.reply.set_result(reply)

    def _try_later(self, call: Call, error: Exception) -> None:
        """By itself: what full memory refuses must not hold up what it lets through."""
        self.redis.failed(error, began=time.monotonic())
        asyncio.get_running_loop().call_later(_pause_s(call.tries), self.send, call)
        call.tries += 1


def _runs(batch: Iterable[Call]) -> Iterable[Sequence[Call]]:
    """The calls by script, RUN at most together. Any order is right behind what goes `first`: nobody has a reply."""
    by_script: dict[str, list[Call]] = {}
    for call in batch:
        by_script.setdefault(call.text, []).append(call)
    for calls in sorted(by_script.values(), key=lambda calls: not any(call.first for call in calls)):
        yield from (calls[start : start + RUN] for start in range(0, len(calls), RUN))


def _packed(run: Sequence[Call]) -> bytes:
    return _pack((b"EVALSHA", sha_of(run[0].text), *together([call.words for call in run])))


def _replies(run: Sequence[Call], answer: Any) -> Sequence[Any]:
    """The reply to each call of a run; an error of the run, such as full memory, is the error of each."""
    if len(run) == 1 or isinstance(answer, Exception):
        return [answer] * len(run)
    return answer


async def _reply(connection: Any) -> Any:
    try:
        return await connection.read_response()
    except ResponseError as error:
        return error


def _pause_s(tries: int) -> float:
    return RETRY_S[min(tries, len(RETRY_S) - 1)]
