"""Lua scripts called from many coroutines: what waits goes out in one round trip, what is lost is asked again.

Each request needs a handful of script calls. Sent one by one they would cost more CPU than the HTTP call
itself, so calls gather while a round trip is under way and leave together in the next.

A connection may die between a write and its reply. Every command of ours gives the same answer to the same
token, so the whole batch is simply sent again; until Redis is back the callers wait, they do not fail.

Batches are written to redis-py's `Connection` and read from it one reply after the other, under one deadline; its
`Pipeline` sets a timer for every reply and dispatches each by command name, a quarter of the CPU a call costs.
"""

import asyncio
import contextvars
import hashlib
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final, TypeVar

import redis.asyncio
from redis.exceptions import (
    ClusterDownError,
    MasterDownError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)

from worker.storage.commands import Argument, Command, Row, Script
from worker.storage.connection import SOCKET_TIMEOUT_S
from worker.storage.events import RedisEvents, Unheard

BATCH: Final = 128
"""Calls per round trip: enough to make the fixed cost vanish, small enough to keep replies coming."""

BATCH_BYTES: Final = 4 * 1024 * 1024
"""After this much no further call joins a batch: what cannot get through in time would be sent for ever."""

RETRY_S: Final = (0.05, 0.1, 0.2, 0.5, 1.0)
"""Pauses between tries while Redis cannot serve, or refuses a call; the last one repeats."""

R = TypeVar("R")


class ScriptError(Exception):
    """The script refused or failed; the message names the Redis error, never an argument."""


@dataclass(eq=False, slots=True)
class _Call:
    text: str
    words: tuple[bytes, ...]
    """Behind the digest: number of keys, keys, command, arguments."""
    reply: "asyncio.Future[Any]"
    tries: int = 0


@dataclass(slots=True)
class ScriptRunner:
    """Runs script commands for one process; tells `events` once when Redis stops serving, and once when it is back."""

    client: redis.asyncio.Redis
    events: RedisEvents = field(default_factory=Unheard)
    within_s: float = SOCKET_TIMEOUT_S
    """For one round trip in all, connecting included."""
    _waiting: deque[_Call] = field(default_factory=deque[_Call])
    _open: set[_Call] = field(default_factory=set[_Call])
    """Calls without a reply, whether they wait, are on their way, or were refused and will be sent again."""
    _shas: dict[str, bytes] = field(default_factory=dict[str, bytes])
    _sender: "asyncio.Task[None] | None" = None
    _troubled: bool = False

    async def call(
        self,
        script: Script,
        command: Command[R],
        keys: Mapping[str, str],
        rows: Sequence[Row] = (),
        /,
        **args: Argument,
    ) -> R:
        """The command's reply, however long Redis is away. `keys` may hold more than the command wants.

        Raises ScriptError for a reply that trying again would not change, and what `Command.words` raises for
        arguments that do not fit.
        """
        words = command.words(keys, args, rows)  # here, where a wrong argument hits nobody but its caller
        call = _Call(script.text_for(command), words, asyncio.get_running_loop().create_future())
        self._open.add(call)
        self._enqueue(call)
        try:
            return command.reply(await call.reply)
        finally:
            self._open.discard(call)

    async def aclose(self) -> None:
        """Cancels whoever still waits for a reply."""
        for call in self._open:
            call.reply.cancel()
        if self._sender is not None:
            self._sender.cancel()
            await asyncio.wait([self._sender])
        await self.client.aclose()

    def _enqueue(self, call: _Call) -> None:
        self._waiting.append(call)
        if self._sender is None or self._sender.done():
            # A context of its own: the first caller's context would keep its execution, and its prompt, alive.
            sending = asyncio.get_running_loop().create_task(self._send_waiting(), context=contextvars.Context())
            self._sender = sending

    async def _send_waiting(self) -> None:
        tries = 0
        while self._waiting:
            await asyncio.sleep(0)  # let everything that is ready in this turn of the loop come along
            batch = self._next_batch()
            if await self._send(batch):
                tries = 0
                continue
            self._waiting.extendleft(reversed(batch))
            await asyncio.sleep(_pause_s(tries))
            tries += 1

    def _next_batch(self) -> list[_Call]:
        batch: list[_Call] = []
        size = 0
        while self._waiting and len(batch) < BATCH and size < BATCH_BYTES:
            call = self._waiting.popleft()
            if not call.reply.done():
                batch.append(call)
                size += sum(map(len, call.words))
        return batch

    async def _send(self, batch: list[_Call]) -> bool:
        """Sends the batch once; False where Redis could not be reached and all of it must be sent again."""
        try:
            replies = await self._round_trip(batch)
        except (RedisError, OSError) as error:
            if _may_pass(error):
                self._note(error)
                return False
            replies = [error] * len(batch)  # the script itself cannot be loaded
        for call, reply in zip(batch, replies, strict=True):
            self._settle(call, reply)
        if any(isinstance(reply, ReadOnlyError) for reply in replies):
            await self.client.connection_pool.disconnect()  # after a failover the address means another server
        if self._troubled and not any(call.tries and not call.reply.done() for call in self._open):
            self._troubled = False
            self.events.redis_recovered()
        return True

    async def _round_trip(self, batch: list[_Call]) -> list[Any]:
        """One reply each, or the error Redis gave instead. Raises for a connection, or a script, that is no good."""
        pool = self.client.connection_pool
        async with asyncio.timeout(self.within_s):
            connection: Any = await pool.get_connection()  # an AbstractConnection, whose replies have half a type
            try:
                await self._load(connection, {call.text for call in batch} - self._shas.keys())
                commands = [(b"EVALSHA", self._shas[call.text], *call.words) for call in batch]
                await connection.send_packed_command(connection.pack_commands(commands))
                return [await _reply(connection) for _ in batch]
            finally:
                # If a reply is still owed, reading it was interrupted, and redis-py has closed the connection for that.
                await pool.release(connection)

    async def _load(self, connection: Any, texts: set[str]) -> None:
        for text in texts:
            await connection.send_command("SCRIPT LOAD", text)
            self._shas[text] = await connection.read_response()

    def _settle(self, call: _Call, reply: Any) -> None:
        if call.reply.done():
            return  # the caller was cancelled meanwhile
        if isinstance(reply, NoScriptError):
            self._shas.pop(call.text, None)
            self._enqueue(call)
        elif isinstance(reply, Exception) and _may_pass(reply):
            self._try_later(call, reply)
        elif isinstance(reply, Exception):
            call.reply.set_exception(ScriptError(str(reply)[:200]))
        else:
            call.reply.set_result(reply)

    def _try_later(self, call: _Call, error: Exception) -> None:
        """By itself: what full memory refuses must not hold up what it lets through."""
        self._note(error)
        asyncio.get_running_loop().call_later(_pause_s(call.tries), self._enqueue, call)
        call.tries += 1

    def _note(self, error: Exception) -> None:
        if not self._troubled:
            self._troubled = True
            # redis-py has a class for most refusals; the others begin with a text that says which they are.
            self.events.redis_lost(
                str(error).split(":")[0][:80] if type(error) is ResponseError else type(error).__name__
            )


def call_blocking(
    client: Any,
    script: Script,
    command: Command[R],
    keys: Mapping[str, str],
    rows: Sequence[Row] = (),
    /,
    **args: Argument,
) -> R:
    """One call by a blocking `redis.Redis`, without retries: for threads and command lines. Raises RedisError."""
    text, words = script.text_for(command), command.words(keys, args, rows)
    try:
        reply = client.execute_command("EVALSHA", _sha(text), *words)
    except NoScriptError:
        reply = client.execute_command("EVAL", text, *words)
    return command.reply(reply)


@cache
def _sha(text: str) -> str:
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


async def _reply(connection: Any) -> Any:
    try:
        return await connection.read_response()
    except ResponseError as error:
        return error


def _pause_s(tries: int) -> float:
    return RETRY_S[min(tries, len(RETRY_S) - 1)]


def _may_pass(error: Exception) -> bool:
    """True for what a restart, a failover, freed memory or a repaired password or permission puts right by itself."""
    if not isinstance(error, ResponseError):
        return True  # of the connection, not of the command
    passing = (OutOfMemoryError, ReadOnlyError, NoPermissionError, MasterDownError, ClusterDownError, TryAgainError)
    # redis-py strips the code of the errors it has a class for, and has none for these.
    texts = ("ACL failure in script", "MISCONF", "NOREPLICAS", "BUSY ", "UNBLOCKED")
    return isinstance(error, passing) or str(error).startswith(texts)
