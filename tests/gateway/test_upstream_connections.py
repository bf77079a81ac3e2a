"""Connections: made, kept, refused, secured, probed, and closed as soon as nobody wants the answer."""

import asyncio
import socket
import ssl

import aiohttp
import pytest
import trustme
from support.raw_gateway import (
    BODY,
    DELTA,
    KEY,
    LARGE,
    RESPONSE,
    Conversation,
    Script,
    calling,
    chunked,
    event,
    plain,
    replies,
    serve,
)

from worker.failures.failure import TransportKind, from_transport
from worker.gateway.sessions import Progress, open_session, progress
from worker.gateway.upstream import Answer, Upstream


async def think(peer: Conversation) -> None:
    await peer.request()
    peer.gateway.reached.set()
    await peer.hang()


async def be_silent(peer: Conversation) -> None:
    await peer.gateway.resume.wait()


async def test_three_hundred_calls_are_under_way_at_once() -> None:
    """Nothing below us queues: the gateway answers none before it has them all."""
    everyone = asyncio.Event()

    async def script(peer: Conversation) -> None:
        await peer.request()
        if len(peer.gateway.requests) == 300:
            everyone.set()
        await everyone.wait()
        await peer.send(plain(RESPONSE))

    async with calling(script) as (upstream, gateway):
        calls = await asyncio.gather(*(upstream.create(BODY, stream=False, timeout_s=5) for _ in range(300)))

    assert all(isinstance(call.outcome, Answer) for call in calls)
    assert gateway.connections == 300


async def test_a_refused_connection_was_never_sent() -> None:
    upstream = Upstream("default", f"http://127.0.0.1:{_closed_port()}", lambda: KEY)
    call = await upstream.create(BODY, stream=False, timeout_s=5)
    await upstream.aclose()

    assert call.outcome == from_transport(TransportKind.UNREACHABLE)
    assert call.http_status is None


@pytest.mark.parametrize(("connect_s", "timeout_s"), [(0.2, 5), (5, 0.2)])
async def test_a_connection_that_does_not_come_about_was_never_sent(connect_s: float, timeout_s: float) -> None:
    """Whichever clock ends it: here a TLS handshake without an answer, until the call's own timeout."""
    async with serve(be_silent) as gateway:
        upstream = Upstream("default", gateway.url.replace("http:", "https:"), lambda: KEY, connect_s=connect_s)
        call = await upstream.create(BODY, stream=False, timeout_s=timeout_s)
        await upstream.aclose()

    assert call.outcome == from_transport(TransportKind.CONNECT_TIMEOUT)
    assert call.duration_ms < 1000


async def test_an_untrusted_certificate_ends_a_call_before_the_key_is_sent(server_tls: ssl.SSLContext) -> None:
    async with serve(replies(plain(RESPONSE)), server_tls) as gateway:
        upstream = Upstream("default", gateway.url, lambda: KEY)
        call = await upstream.create(BODY, stream=False, timeout_s=5)
        await upstream.aclose()

    assert call.outcome == from_transport(TransportKind.UNREACHABLE)
    assert not gateway.requests


async def test_a_kept_connection_that_was_closed_meanwhile_is_replaced() -> None:
    """The usual end of an idle connection, noticed in time."""

    async def script(peer: Conversation) -> None:
        await peer.request()
        await peer.send(plain(RESPONSE))
        peer.writer.write_eof()
        await peer.hang()

    async with calling(script) as (upstream, gateway):
        await upstream.create(BODY, stream=False, timeout_s=5)
        await asyncio.wait_for(gateway.peer_left.wait(), 5)
        call = await upstream.create(BODY, stream=False, timeout_s=5)

    assert isinstance(call.outcome, Answer)
    assert gateway.connections == 2


@pytest.mark.parametrize("how", [socket.SHUT_WR, socket.SHUT_RDWR], ids=["closed", "reset"])
async def test_a_kept_connection_closed_while_we_write_was_stale(how: int) -> None:
    """The usual race: nothing was read and the end came at once. aiohttp does not retry a POST, so we do."""
    async with calling(replies(plain(RESPONSE), plain(RESPONSE))) as (upstream, gateway):
        await upstream.create(BODY, stream=False, timeout_s=5)
        gateway.conversations[0].writer.get_extra_info("socket").shutdown(how)
        call = await upstream.create(BODY, stream=False, timeout_s=5)

    assert call.outcome == from_transport(TransportKind.STALE)
    assert gateway.connections == 1


async def answer_slowly(peer: Conversation) -> None:
    await peer.request()
    await peer.send(chunked(event(DELTA)).removesuffix(b"0\r\n\r\n"))
    peer.gateway.reached.set()
    await peer.hang()


@pytest.mark.parametrize("secure", [False, True], ids=["tcp", "tls"])
@pytest.mark.parametrize("script", [think, answer_slowly])
async def test_cancelling_a_call_closes_its_connection_at_once(
    script: Script,
    secure: bool,  # noqa: FBT001  # parametrized
    server_tls: ssl.SSLContext,
    client_tls: ssl.SSLContext,
) -> None:
    """A gateway that sees us go stops generating, and stops billing."""
    async with serve(script, server_tls if secure else None) as gateway:
        upstream = Upstream("default", gateway.url, lambda: KEY, ssl_context=client_tls)
        call = asyncio.create_task(upstream.create(BODY, stream=True, timeout_s=60))
        await asyncio.wait_for(gateway.reached.wait(), 5)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.wait_for(gateway.peer_left.wait(), 1)
        await upstream.aclose()


async def take_little(peer: Conversation) -> None:
    """Reads no more, and finds out by writing whether anybody is still there."""
    await peer.reader.readexactly(1000)
    peer.gateway.reached.set()
    await peer.gateway.resume.wait()
    while True:
        await peer.send(b" ", every_s=0.01)


@pytest.mark.parametrize("write_s", [0.1, 60], ids=["time-up", "cancelled"])
async def test_a_request_that_is_given_up_leaves_no_connection_behind(write_s: float) -> None:
    """Merely closing it would wait, for ever, until the gateway takes what it does not take."""
    async with calling(take_little, write_s=write_s) as (upstream, gateway):
        call = asyncio.create_task(upstream.create(LARGE, stream=False, timeout_s=120))
        await asyncio.wait_for(gateway.reached.wait(), 5)
        if write_s > 1:
            call.cancel()
        await asyncio.wait([call], timeout=5)
        gateway.resume.set()
        await asyncio.wait_for(gateway.peer_left.wait(), 1)


async def test_a_request_that_cannot_be_written_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """By whatever error: nobody waits for the answer to a request that never left."""

    async def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(aiohttp.ClientRequest, "write_bytes", broken)
    async with calling(think) as (upstream, _):
        call = await asyncio.wait_for(upstream.create(BODY, stream=False, timeout_s=60), 5)

    assert call.outcome == from_transport(TransportKind.UNREACHABLE)


async def test_tls_connections_are_kept_too(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    """A handshake costs more than a call."""
    async with serve(replies(*[plain(RESPONSE)] * 3), server_tls) as gateway:
        upstream = Upstream("default", gateway.url, lambda: KEY, ssl_context=client_tls)
        calls = [await upstream.create(BODY, stream=False, timeout_s=5) for _ in range(3)]
        await upstream.aclose()

    assert all(isinstance(call.outcome, Answer) for call in calls)
    assert gateway.connections == 1


async def test_closing_ends_calls_under_way_and_refuses_new_ones() -> None:
    """The first may be billed, the second was never sent."""
    async with calling(think) as (upstream, gateway):
        under_way = asyncio.create_task(upstream.create(BODY, stream=False, timeout_s=60))
        await asyncio.wait_for(gateway.reached.wait(), 5)
        await upstream.aclose()
        late = await upstream.create(BODY, stream=False, timeout_s=60)

        assert (await under_way).outcome == from_transport(TransportKind.RESET)
        assert late.outcome == from_transport(TransportKind.UNREACHABLE)


async def test_silent_connections_are_probed(client_tls: ssl.SSLContext) -> None:
    """NAT keeps the mapping while a model thinks, and a peer that is gone is noticed."""
    async with serve(answer_slowly) as gateway, open_session(client_tls) as session:
        progress.set(Progress(write_s=5))
        async with session.post(gateway.url, data=BODY) as response:
            assert response.connection is not None
            assert response.connection.transport is not None
            probed = response.connection.transport.get_extra_info("socket")
            assert probed.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


def _closed_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def server_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)  # pyright: ignore[reportUnknownMemberType]  # PyOpenSSL is absent
    return context


@pytest.fixture(scope="module")
def client_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)  # pyright: ignore[reportUnknownMemberType]  # PyOpenSSL is absent
    return context
