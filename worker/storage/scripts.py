"""Lua scripts called from many coroutines.

Each request needs a handful of script calls. Sent one by one they would cost more CPU than the HTTP call
itself, so calls gather while a round trip is under way and leave together in the next.

A connection may die between a write and its reply. Every command of ours gives the same answer to the same
token, so the whole batch is simply sent again; until Redis is back the callers wait, they do not fail.

Three connections share the work, so that nothing small waits behind something large: one for calls that are large, one
for replies that may be, and one for the rest. On a slow link a result goes out while messages come in.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, InitVar, dataclass, field
from typing import Any, Final, TypeVar

import redis.asyncio
from redis.exceptions import NoScriptError

from worker.storage.commands import Argument, Command, Row, Script, together
from worker.storage.connection import SOCKET_TIMEOUT_S
from worker.storage.errors import ScriptError
from worker.storage.events import RedisEvents, Unheard
from worker.storage.gathering import Pace
from worker.storage.parts import sha_of
from worker.storage.sender import Call, Redis, Sender

__all__ = ["ScriptError", "ScriptRunner", "call_blocking"]

LARGE: Final = 64 * 1024
"""Bytes from which on a call goes by the connection for large ones."""

R = TypeVar("R")


@dataclass(slots=True)
class ScriptRunner:
    """Runs script commands for one process; tells `events` once when Redis stops serving, and once when it is back."""

    client: redis.asyncio.Redis
    events: InitVar[RedisEvents | None] = None
    _: KW_ONLY
    within_s: InitVar[float] = SOCKET_TIMEOUT_S
    """The longest silence of Redis in a round trip; the whole time depends on its bytes."""
    _redis: Redis = field(init=False)
    _small: Sender = field(init=False)
    _large: Sender = field(init=False)
    _replies: Sender = field(init=False)

    def __post_init__(self, events: RedisEvents | None, within_s: float) -> None:
        self._redis = Redis(self.client, events or Unheard(), within_s)
        self._small, self._large, self._replies = (Sender(self._redis) for _ in range(3))

    async def call(
        self,
        script: Script,
        command: Command[R],
        keys: Mapping[str, str],
        rows: Sequence[Row] = (),
        groups: Sequence[Row] = (),
        /,
        **args: Argument,
    ) -> R:
        """The command's reply, however long Redis is away. `keys` may hold more than the command wants.

        Raises ScriptError for a reply that trying again would not change, and what `Command.words` raises for
        arguments that do not fit.
        """
        words = command.words(keys, args, rows, groups)  # here, where a wrong argument hits nobody but its caller
        call = Call(script.text_for(command), words, asyncio.get_running_loop().create_future(), first=command.first)
        self._redis.open.add(call)
        self._sender(command, call).send(call)
        try:
            return command.reply(await call.reply)
        finally:
            self._redis.open.discard(call)

    @property
    def pace(self) -> Pace:
        """Hears how long answers of the gateway take: script calls wait for each other for a small share of it."""
        return self._redis.pace

    async def aclose(self) -> None:
        """Cancels whoever still waits for a reply."""
        for call in self._redis.open:
            call.reply.cancel()
        for sender in (self._small, self._large, self._replies):
            await sender.aclose()
        await self.client.aclose()

    def _sender(self, command: Command[Any], call: Call) -> Sender:
        if command.large_reply:
            return self._replies
        return self._large if call.size > LARGE else self._small


def call_blocking(  # noqa: PLR0917  # as `ScriptRunner.call`
    client: Any,
    script: Script,
    command: Command[R],
    keys: Mapping[str, str],
    rows: Sequence[Row] = (),
    groups: Sequence[Row] = (),
    /,
    **args: Argument,
) -> R:
    """One call by a blocking `redis.Redis`, without retries: for threads and command lines. Raises RedisError."""
    text, words = script.text_for(command), together([command.words(keys, args, rows, groups)])
    try:
        reply = client.execute_command("EVALSHA", sha_of(text), *words)
    except NoScriptError:
        reply = client.execute_command("EVAL", text, *words)
    return command.reply(reply)
