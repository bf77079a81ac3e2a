"""Writes the end of a call to its connection. No other module writes answers, cuts or resets."""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from http import HTTPStatus
from typing import Final

from aiohttp import web

from worker.devtools.simulator.answers import ScriptedReply, answer_to, error_events, events
from worker.devtools.simulator.config import SimulatorConfig
from worker.devtools.simulator.faults import Ending
from worker.devtools.simulator.replies import Reply, fault_reply
from worker.devtools.simulator.requests import Asked
from worker.devtools.simulator.script import Plan

_NO_LINGER: Final = struct.pack("ii", 1, 0)
"""SO_LINGER of zero seconds: closing sends a reset instead of a FIN (POSIX, socket(7))."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One admitted call and everything its answer is made of."""

    request: web.Request
    asked: Asked
    plan: Plan
    config: SimulatorConfig
    number: int
    headers: Mapping[str, str]
    """Of a good answer."""
    latency_s: float

    @property
    def ending(self) -> Ending:
        return self.plan.fault.ending

    @property
    def streamed(self) -> bool:
        """True if the client gets events. An error status precedes any stream."""
        if self.ending is Ending.REPLY:
            return self.asked.stream and self.plan.fault.status == HTTPStatus.OK
        return self.asked.stream and self.ending not in (Ending.RESET, Ending.HANG)

    def answer(self) -> ScriptedReply:
        """The response object that the call would end with."""
        answer = answer_to(
            self.asked,
            response_id=f"resp_{sha256(f'{self.config.seed}:{self.number}'.encode()).hexdigest()[:48]}",
            now=int(datetime.now(UTC).timestamp()),
            output_tokens=self.plan.output_tokens,
            default_output_tokens=self.config.default_output_tokens,
            patch=self.plan.fault.patch,
        )
        return answer.broken() if self.ending is Ending.BROKEN else answer


def request_id(number: int) -> str:
    """The id by which the gateway's operators would find a call."""
    return f"sim-{number:012d}"


def response_to(reply: Reply) -> web.Response:
    """A reply as aiohttp sends it."""
    return web.Response(status=reply.status, headers=reply.headers, body=reply.body)


async def end(exchange: Exchange) -> web.StreamResponse:
    """Answer the call, or fail to, as its plan says and no sooner than its latency."""
    if exchange.streamed:
        return await _stream(exchange)
    await asyncio.sleep(exchange.latency_s)
    return await _ENDINGS.get(exchange.ending, _object)(exchange)


async def _object(exchange: Exchange) -> web.StreamResponse:
    body = exchange.answer().raw.encode(errors="replace")
    return web.Response(headers=exchange.headers, body=body)


async def _reply(exchange: Exchange) -> web.StreamResponse:
    number = request_id(exchange.number)
    reply = fault_reply(exchange.plan.fault, exchange.config, number, datetime.now(UTC))
    return response_to(reply)


async def _cut(exchange: Exchange) -> web.StreamResponse:
    body = exchange.answer().raw.encode(errors="replace")
    response = web.StreamResponse(headers=exchange.headers)
    response.content_length = len(body)
    await response.prepare(exchange.request)
    await response.write(body[: len(body) // 2])
    _close(exchange.request)
    return response


async def _reset(exchange: Exchange) -> web.StreamResponse:
    if transport := exchange.request.transport:
        connection: socket.socket = transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        transport.abort()
    return web.Response()


async def _hang(_exchange: Exchange) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError("nothing sets the event: the client's leaving cancels this call")


async def _stream(exchange: Exchange) -> web.StreamResponse:
    frames = _frames(exchange)
    if exchange.ending is Ending.CUT:
        frames = [*frames[: len(frames) // 2], frames[-1][: len(frames[-1]) // 2]]
    response = web.StreamResponse(headers={**exchange.headers, "Content-Type": "text/event-stream; charset=utf-8"})
    await response.prepare(exchange.request)
    await _write_paced(response, frames, exchange.latency_s)
    if exchange.ending is Ending.CUT:
        _close(exchange.request)
    return response


def _frames(exchange: Exchange) -> list[str]:
    if exchange.ending is not Ending.REPLY:
        return list(events(exchange.answer(), exchange.config.stream_deltas))
    error = exchange.plan.fault.error
    return [] if error is None else list(error_events(exchange.answer(), error))


async def _write_paced(response: web.StreamResponse, frames: list[str], latency_s: float) -> None:
    if not latency_s:
        frames = ["".join(frames)]
    for text in frames:
        await asyncio.sleep(latency_s / len(frames))
        await response.write(text.encode(errors="replace"))


def _close(request: web.Request) -> None:
    if request.transport:
        request.transport.close()


_ENDINGS: Final[Mapping[Ending, Callable[[Exchange], Awaitable[web.StreamResponse]]]] = {
    Ending.REPLY: _reply,
    Ending.CUT: _cut,
    Ending.RESET: _reset,
    Ending.HANG: _hang,
}
