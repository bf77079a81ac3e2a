"""Lua scripts called from many coroutines: what waits goes out in one round trip, what is lost is asked again.

Each request needs a handful of script calls. Sent one by one they would cost more CPU than the HTTP call
itself, so calls gather while a round trip is under way and leave together in the next.

A connection may die between a write and its reply. Every command of ours gives the same answer to the same
token, so the whole batch is simply sent again; until Redis is back the callers wait, they do not fail.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, Final

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

BATCH: Final = 128
"""Calls per round trip: enough to make the fixed cost vanish, small enough to keep replies coming."""

RETRY_S: Final = (0.05, 0.1, 0.2, 0.5, 1.0)
"""Pauses between tries while Redis cannot serve, or refuses a call; the last one repeats."""

Argument = str | bytes | int | float


@dataclass(frozen=True, slots=True)
class Script:
    """Lua files read as one, and loaded twice: commands in `even_when_full` may write when Redis has no memory left."""

    refusing: str = field(repr=False)
    insisting: str = field(repr=False)
    even_when_full: frozenset[str]

    @classmethod
    def load(cls, *names: str, even_when_full: frozenset[str] = frozenset()) -> "Script":
        """The files `names` of this package, one after the other, as one script."""
        source = "\n".join(files("worker").joinpath(name).read_text(encoding="utf-8") for name in names)
        return cls(f"#!lua\n{source}", f"#!lua flags=allow-oom\n{source}", even_when_full)

    def text_for(self, command: str) -> str:
        return self.insisting if command in self.even_when_full else self.refusing


class ScriptError(Exception):
    """The script refused or failed; the message names the Redis error, never an argument."""


@dataclass(eq=False, slots=True)
class _Call:
    text: str
    arguments: tuple[bytes, ...]
    reply: "asyncio.Future[Any]"
    tries: int = 0


@dataclass(slots=True)
class ScriptRunner:
    """Runs script commands for one process; `on_trouble` hears once when Redis stops serving, and once after."""

    client: redis.asyncio.Redis
    on_trouble: Callable[[str | None], None] = lambda _: None
    _waiting: list[_Call] = field(default_factory=list[_Call])
    _open: set[_Call] = field(default_factory=set[_Call])
    """Calls without a reply, whether they wait, are on their way, or were refused and will be sent again."""
    _shas: dict[str, str] = field(default_factory=dict[str, str])
    _sender: "asyncio.Task[None] | None" = None
    _troubled: bool = False

    async def call(self, script: Script, command: str, *arguments: Argument) -> Any:
        """The command's reply, however long Redis is away.

        Raises ScriptError for a reply that trying again would not change, and whatever redis-py raises for an
        argument that cannot be sent.
        """
        encode = self.client.get_encoder().encode  # here, where a wrong argument hits nobody but its caller
        encoded = tuple(encode(argument) for argument in (command, *arguments))
        call = _Call(script.text_for(command), encoded, asyncio.get_running_loop().create_future())
        self._open.add(call)
        self._enqueue(call)
        try:
            return await call.reply
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
            self._sender = asyncio.get_running_loop().create_task(self._send_waiting())

    async def _send_waiting(self) -> None:
        tries = 0
        while self._waiting:
            await asyncio.sleep(0)  # let everything that is ready in this turn of the loop come along
            batch = [call for call in self._waiting[:BATCH] if not call.reply.done()]
            del self._waiting[:BATCH]
            if await self._send(batch):
                tries = 0
                continue
            self._waiting[:0] = batch
            await asyncio.sleep(_pause_s(tries))
            tries += 1

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
            self.on_trouble(None)
        return True

    async def _round_trip(self, batch: list[_Call]) -> list[Any]:
        for text in {call.text for call in batch} - self._shas.keys():
            self._shas[text] = str(await self.client.script_load(text))
        pipeline: Any = self.client.pipeline(transaction=False)
        for call in batch:
            pipeline.execute_command("EVALSHA", self._shas[call.text], 0, *call.arguments)
        return await pipeline.execute(raise_on_error=False)

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
            self.on_trouble(type(error).__name__)


def _pause_s(tries: int) -> float:
    return RETRY_S[min(tries, len(RETRY_S) - 1)]


def _may_pass(error: Exception) -> bool:
    """True for what a restart, a failover, freed memory or a repaired password or permission puts right by itself."""
    if not isinstance(error, ResponseError):
        return True  # of the connection, not of the command
    passing = (OutOfMemoryError, ReadOnlyError, NoPermissionError, MasterDownError, ClusterDownError, TryAgainError)
    # redis-py strips the code of the errors it has a class for, and has none for these.
    return isinstance(error, passing) or str(error).startswith(("MISCONF", "NOREPLICAS", "BUSY ", "UNBLOCKED"))
