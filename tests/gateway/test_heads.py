"""Heads are mended where their meaning is plain, and stay as they came where nothing is wrong."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.raw_gateway import BODY, RESPONSE, Conversation, calling, chunked, head, plain, replies

from worker.gateway.heads import mended
from worker.gateway.upstream import Answer

OK = b"HTTP/1.1 200 OK\r\n"
TOKENS = st.text("abcdefghijklmnopqrstuvwxyzABC-_0123456789", min_size=1, max_size=12).map(str.encode)
VALUES = st.text("abc ,;=/\u00e9", max_size=20).map(lambda text: text.strip().encode())


@given(st.lists(st.tuples(TOKENS, VALUES), max_size=6))
def test_a_head_without_faults_stays_byte_for_byte(fields: list[tuple[bytes, bytes]]) -> None:
    innocent = [field for field in fields if field[0].lower() not in (b"content-length", b"transfer-encoding")]
    given_head = OK + b"".join(b"%s:  %s\r\n" % field for field in innocent) + b"\r\n"

    assert mended(given_head) == (given_head, False)


@pytest.mark.parametrize(
    ("fields", "expected", "ambiguous"),
    [
        (b"A: 1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked", b"A: 1\r\nTransfer-Encoding: chunked", True),
        (b"content-length: 5\r\nCONTENT-LENGTH: 5", b"Content-Length: 5", False),
        (b"Content-Length: 5, 5", b"Content-Length: 5", False),
        (b"x cache: hit\r\nA: 1", b"A: 1", False),
        (b"A : 1", b"A: 1", False),
    ],
)
def test_a_fault_is_mended_and_the_rest_is_kept(fields: bytes, expected: bytes, ambiguous: bool) -> None:  # noqa: FBT001  # a table
    assert mended(OK + fields + b"\r\n\r\n") == (OK + expected + b"\r\n\r\n", ambiguous)


async def test_heads_that_come_byte_by_byte_and_after_interim_answers_are_read() -> None:
    reply = b"HTTP/1.1 103 Early Hints\r\nlink : x\r\n\r\n" + plain(RESPONSE, "x cache: hit")

    async def script(peer: Conversation) -> None:
        for _ in range(2):
            await peer.request()
            await peer.send(*[reply[at : at + 1] for at in range(150)], reply[150:])

    async with calling(script) as (upstream, gateway):
        for _ in range(2):
            outcome = (await upstream.create(BODY, stream=False, timeout_s=5)).outcome
            assert isinstance(outcome, Answer)
            assert outcome.raw == RESPONSE
        assert gateway.connections == 1


async def test_a_connection_of_ambiguous_framing_is_not_used_again() -> None:
    """Nobody knows where its next answer would begin."""
    reply = chunked(RESPONSE, kind="application/json").replace(b"\r\n", b"\r\ncontent-length: 3\r\n", 1)
    async with calling(replies(reply, reply)) as (upstream, gateway):
        for _ in range(2):
            assert isinstance((await upstream.create(BODY, stream=False, timeout_s=5)).outcome, Answer)

        assert gateway.connections == 2


@pytest.mark.parametrize("missing", [b"", b"\n"])
async def test_an_answer_that_is_whole_is_not_kept_waiting_by_a_length_that_is_not(missing: bytes) -> None:
    """The gateway keeps the connection and waits for the next request; we wait for seven bytes."""

    async def script(peer: Conversation) -> None:
        await peer.request()
        await peer.send(head(f"content-length: {len(RESPONSE) + 7}") + RESPONSE + missing)
        await peer.hang()

    async with calling(script) as (upstream, _):
        call = await upstream.create(BODY, stream=False, timeout_s=60)

    assert isinstance(call.outcome, Answer)
    assert call.duration_ms < 5000


async def test_a_pause_within_an_answer_does_not_end_it() -> None:
    """The first piece ends like a document, and is none."""
    pieces = RESPONSE[: RESPONSE.index(b"}") + 1], RESPONSE[RESPONSE.index(b"}") + 1 :]

    async def script(peer: Conversation) -> None:
        await peer.request()
        await peer.send(head(f"content-length: {len(RESPONSE)}") + pieces[0], pieces[1], every_s=1.3)

    async with calling(script) as (upstream, _):
        outcome = (await upstream.create(BODY, stream=False, timeout_s=20)).outcome

    assert isinstance(outcome, Answer)
    assert outcome.raw == RESPONSE
