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
    AuthenticationError,
    BusyLoadingError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

BATCH: Final = 128
"""Calls per round trip: enough to make the fixed cost vanish, small enough to keep replies coming."""

RETRY_S: Final = (0.05, 0.1, 0.2, 0.5, 1.0)
"""Pauses between tries while Redis cannot serve; the last one repeats."""

Argument = str | bytes | int | float


@dataclass(frozen=True)
class Script:
    """One Lua file, loaded twice: commands in `even_when_full` may write when Redis has no memory left."""

    source: str
    even_when_full: frozenset[str]

    @classmethod
    def load(cls, name: str, *, even_when_full: frozenset[str] = frozenset()) -> "Script":
        return cls(files("worker").joinpath(name).read_text(encoding="utf-8"), even_when_full)

    def text_for(self, command: str) -> str:
        flags = " flags=allow-oom" if command in self.even_when_full else ""
        return f"#!lua{flags}\n{self.source}"


class ScriptError(Exception):
    """The script refused or failed; the message names the Redis error, never an argument."""


@dataclass(slots=True)
class _Call:
    text: str
    arguments: tuple[Argument, ...]
    reply: "asyncio.Future[Any]"


@dataclass(slots=True)
class ScriptRunner:
    """Runs script commands for one process; `on_trouble` hears once when Redis stops serving, and once after."""

    client: redis.asyncio.Redis
    on_trouble: Callable[[str | None], None] = lambda _: None
    _waiting: list[_Call] = field(default_factory=list[_Call])
    _shas: dict[str, str] = field(default_factory=dict[str, str])
    _sender: "asyncio.Task[None] | None" = None
    _troubled: bool = False

    async def call(self, script: Script, command: str, *arguments: Argument) -> Any:
        """The command's reply, however long Redis is away.

        Raises ScriptError for a reply that trying again would not change.
        """
        loop = asyncio.get_running_loop()
        reply: asyncio.Future[Any] = loop.create_future()
        self._waiting.append(_Call(script.text_for(command), (command, *arguments), reply))
        if self._sender is None or self._sender.done():
            self._sender = loop.create_task(self._send_waiting())
        return await reply

    async def aclose(self) -> None:
        if self._sender is not None:
            self._sender.cancel()
        await self.client.aclose()

    async def _send_waiting(self) -> None:
        tries = 0
        while self._waiting:
            await asyncio.sleep(0)  # let everything that is ready in this turn of the loop come along
            batch = [call for call in self._waiting[:BATCH] if not call.reply.done()]
            del self._waiting[:BATCH]
            again = await self._send(batch)
            if not again:
                tries = 0
                continue
            # Behind the others: what full memory refuses must not hold up what it lets through.
            self._waiting.extend(again)
            await asyncio.sleep(RETRY_S[min(tries, len(RETRY_S) - 1)])
            tries += 1

    async def _send(self, batch: list[_Call]) -> list[_Call]:
        """Sends the batch once; returns the calls that must be sent again."""
        try:
            for text in {call.text for call in batch} - self._shas.keys():
                self._shas[text] = str(await self.client.script_load(text))
            pipeline: Any = self.client.pipeline(transaction=False)
            for call in batch:
                pipeline.execute_command("EVALSHA", self._shas[call.text], 0, *call.arguments)
            replies = await pipeline.execute(raise_on_error=False)
        except (RedisError, OSError) as error:
            self._note(error)
            return batch
        again: list[_Call] = []
        for call, reply in zip(batch, replies, strict=True):
            if isinstance(reply, Exception) and _may_pass(reply):
                self._note(reply)
                again.append(call)
            elif call.reply.done():
                continue  # the caller was cancelled meanwhile
            elif isinstance(reply, Exception):
                call.reply.set_exception(ScriptError(str(reply)[:200]))
            else:
                call.reply.set_result(reply)
        if not again and self._troubled:
            self._troubled = False
            self.on_trouble(None)
        return again

    def _note(self, error: Exception) -> None:
        if isinstance(error, NoScriptError):
            self._shas.clear()
            return
        if not self._troubled:
            self._troubled = True
            self.on_trouble(type(error).__name__)


def _may_pass(error: Exception) -> bool:
    """True for what a restart, a failover, freed memory or a repaired password puts right by itself."""
    passing = (NoScriptError, OutOfMemoryError, ReadOnlyError, BusyLoadingError, AuthenticationError)
    if isinstance(error, (*passing, RedisConnectionError, RedisTimeoutError)):
        return True
    words = ("MISCONF", "MASTERDOWN", "NOREPLICAS", "CLUSTERDOWN", "TRYAGAIN", "OOM", "NOPERM", "UNBLOCKED")
    return isinstance(error, ResponseError) and str(error).startswith(words)
