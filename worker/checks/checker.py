"""Asks the process apart, one question at a time, and starts it again where a question has ended it."""

import asyncio
import os
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import orjson

from worker.checks.findings import Finding
from worker.checks.process import HEAD, SIZE, Question

WALL_S: Final = 30.0
"""A question that waits longer for its answer is given up: the machine has stopped, or the process has."""
TOO_COSTLY: Final = "takes too long to check; make it smaller or less nested"


@dataclass(slots=True)
class _Process:
    popen: "subprocess.Popen[bytes]"
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


@dataclass(slots=True)
class Checker:
    """Judges schemas and answers without holding up the loop. Costs nothing until the first question."""

    _process: _Process | None = None
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def request(self, body: bytes, *, tools: bool) -> Finding | None:
        """The fault of a request's schemas, or None. Raises OSError where no process can be started."""
        question = Question.ALL_SCHEMAS if tools else Question.OUTPUT_SCHEMA
        try:
            return await self._asked(question, body, b"")
        except _GoneError:
            return Finding("body", TOO_COSTLY)

    async def answer(self, body: bytes, response: bytes) -> Finding | None:
        """The fault of a completed response to this body, or None. Never raises: the response is paid for."""
        try:
            return await self._asked(Question.ANSWER, body, response)
        except (_GoneError, OSError):
            return Finding("response", "could not be checked in time")

    async def close(self) -> None:
        """Ends the process."""
        process, self._process = self._process, None
        if process is not None:
            process.popen.kill()
            process.writer.close()
            with suppress(OSError):
                await process.writer.wait_closed()
            await asyncio.to_thread(process.popen.wait)

    async def _asked(self, question: Question, body: bytes, response: bytes) -> Finding | None:
        async with self._turn:
            process = self._process = self._process or await _started()
            try:
                async with asyncio.timeout(WALL_S):
                    process.writer.writelines((HEAD.pack(question, len(body), len(response)), body, response))
                    await process.writer.drain()
                    (size,) = SIZE.unpack(await process.reader.readexactly(SIZE.size))
                    reply = await process.reader.readexactly(size)
            except (asyncio.IncompleteReadError, ConnectionError, TimeoutError):
                await self.close()
                raise _GoneError from None
            except asyncio.CancelledError:  # the reply would answer the next question
                await asyncio.shield(self.close())
                raise
        return Finding(**orjson.loads(reply)) if reply else None


class _GoneError(Exception):
    """The process ended in the middle of a question."""


async def _started() -> _Process:
    ours, theirs = socket.socketpair()
    with theirs:
        popen = await asyncio.to_thread(_spawned, theirs)
    reader, writer = await asyncio.open_unix_connection(sock=ours)
    return _Process(popen, reader, writer)


def _spawned(stdin: socket.socket) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "worker.checks.process"],
        stdin=stdin.fileno(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},  # no key and no address of ours
        start_new_session=True,  # an interrupt of the terminal is the worker's to handle
    )
