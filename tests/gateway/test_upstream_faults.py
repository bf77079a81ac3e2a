"""Whether a broken call was sent and may be billed, for every way to break it, on real sockets."""

from dataclasses import replace

import pytest
from support.raw_gateway import (
    BODY,
    DELTA,
    LARGE,
    RESPONSE,
    Conversation,
    Script,
    calling,
    chunked,
    event,
    head,
    plain,
)

from worker.failures.failure import TransportKind, from_transport, invalid_response


async def reset_midway(peer: Conversation) -> None:
    await peer.reader.readexactly(1000)
    peer.reset()


async def close_midway(peer: Conversation) -> None:
    await peer.reader.readexactly(1000)


async def take_nothing(peer: Conversation) -> None:
    await peer.gateway.resume.wait()


async def reset_after(peer: Conversation) -> None:
    await peer.request()
    peer.reset()


async def close_after(peer: Conversation) -> None:
    await peer.request()


async def think(peer: Conversation) -> None:
    await peer.request()
    peer.gateway.reached.set()
    await peer.hang()


async def talk_nonsense(peer: Conversation) -> None:
    await peer.request()
    await peer.send(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")


async def stall(peer: Conversation) -> None:
    await peer.request()
    await peer.send(plain(RESPONSE)[:-9])
    await peer.hang()


async def stall_before_the_body(peer: Conversation) -> None:
    await peer.request()
    await peer.send(head("content-length: 9"))
    await peer.hang()


async def drip(peer: Conversation) -> None:
    await peer.request()
    reply = plain(RESPONSE)
    await peer.send(reply[:-100], *[bytes([byte]) for byte in reply[-100:]], every_s=0.02)


async def end_early(peer: Conversation) -> None:
    await peer.request()
    await peer.send(plain(RESPONSE)[:-9])


async def cut_an_early_answer(peer: Conversation) -> None:
    await peer.reader.readexactly(1000)
    await peer.send(head("content-length: 9"), every_s=0.01)
    await peer.reader.readexactly(len(LARGE) - 1000)


async def reset_while_answering(peer: Conversation) -> None:
    await peer.request()
    await peer.send(plain(RESPONSE)[:-9])
    peer.reset()


async def end_without_terminal_event(peer: Conversation) -> None:
    await peer.request()
    await peer.send(chunked(event(DELTA), event(b"[DONE]")))


async def cut_the_stream(peer: Conversation) -> None:
    await peer.request()
    await peer.send(chunked(event(DELTA), event(DELTA))[:-20])


async def test_a_head_that_nobody_can_read_is_a_costly_failure_that_says_so() -> None:
    async with calling(talk_nonsense) as (upstream, _):
        call = await upstream.create(BODY, stream=False, timeout_s=5)

    assert call.outcome == replace(invalid_response("its HTTP head cannot be read", 0), http_status=None)


@pytest.mark.parametrize(
    ("script", "body", "kind", "http_status"),
    [
        (reset_midway, LARGE, TransportKind.UNREACHABLE, None),
        (close_midway, LARGE, TransportKind.UNREACHABLE, None),
        (take_nothing, LARGE, TransportKind.WRITE_TIMEOUT, None),
        (reset_after, BODY, TransportKind.RESET, None),
        (close_after, BODY, TransportKind.RESET, None),
        (reset_after, LARGE, TransportKind.RESET, None),
        (think, BODY, TransportKind.TOTAL_TIMEOUT, None),
        (stall, BODY, TransportKind.READ_TIMEOUT, 200),
        (stall_before_the_body, BODY, TransportKind.READ_TIMEOUT, 200),
        (drip, BODY, TransportKind.READ_TIMEOUT, 200),
        (cut_an_early_answer, LARGE, TransportKind.CUT_SHORT, 200),
        (end_early, BODY, TransportKind.CUT_SHORT, 200),
        (reset_while_answering, BODY, TransportKind.CUT_SHORT, 200),
        (end_without_terminal_event, BODY, TransportKind.CUT_SHORT, 200),
        (cut_the_stream, BODY, TransportKind.CUT_SHORT, 200),
    ],
    ids=lambda value: (
        value.__name__ if callable(value) else f"{len(value)} bytes" if isinstance(value, bytes) else None
    ),
)
async def test_how_far_a_call_got_decides_what_its_end_means(
    script: Script, body: bytes, kind: TransportKind, http_status: int | None
) -> None:
    """One row per fault; the exceptions of the layers below confuse several of them."""
    write_s = 0.2 if script is take_nothing else 0.7  # nine megabytes take their time on a busy machine
    async with calling(script, write_s=write_s, silence_s=0.2) as (upstream, _):
        call = await upstream.create(body, stream=False, timeout_s=0.8)

    assert call.outcome == replace(from_transport(kind), http_status=http_status)
    assert (call.duration_ms >= 790) is (script in {think, drip}), "only the call's own timeout takes so long"


async def test_silence_within_an_answer_is_bounded_by_the_call_alone_unless_told_otherwise() -> None:
    """A model may think between two pieces for as long as the caller waits; a second call would cost as much again."""
    async with calling(stall) as (upstream, _):
        call = await upstream.create(BODY, stream=False, timeout_s=0.6)

    assert call.outcome == replace(from_transport(TransportKind.READ_TIMEOUT), http_status=200)
    assert call.duration_ms >= 590
