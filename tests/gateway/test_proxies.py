"""Calls through an HTTP proxy: as the settings or the environment name it, for plain and secure gateways."""

import asyncio
import base64
import contextlib
import ssl
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

import pytest
import trustme
from support.raw_gateway import BODY, KEY, RESPONSE, Conversation, plain, replies, serve

from worker.config.key_places import check_keys
from worker.config.proxies import environment_proxy
from worker.config.settings import WrongSettingsError, load
from worker.gateway.upstream import Answer, Upstream
from worker.operations.gateway_health import examine_gateway

LOGIN = "Basic " + base64.b64encode(b"us:p@ss").decode()


@dataclass(slots=True)
class Proxy:
    """A proxy on a socket: it passes requests on, and joins the two ends of a CONNECT."""

    port: int = 0
    heads: list[str] = field(default_factory=list[str])

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.heads.append(head)
        method, target, _ = head.split(" ", 2)
        port = int(target.removeprefix("http://").partition("/")[0].rpartition(":")[2])
        upstream, onward = await asyncio.open_connection("127.0.0.1", port)
        if method == "CONNECT":
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            onward.write(head.encode())
        await asyncio.gather(_pass(reader, onward), _pass(upstream, writer))


async def _pass(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while piece := await source.read(65536):
            sink.write(piece)
    sink.close()


@pytest.fixture
async def proxy() -> AsyncGenerator[Proxy]:
    proxy = Proxy()
    async with await asyncio.start_server(proxy.serve, "127.0.0.1", 0) as server:
        proxy.port = server.sockets[0].getsockname()[1]
        yield proxy


async def test_a_plain_gateway_is_called_through_the_proxy(proxy: Proxy) -> None:
    async with serve(replies(plain(RESPONSE), plain(RESPONSE))) as gateway:
        upstream = Upstream("default", gateway.url, lambda: KEY, proxy=f"http://us:p%40ss@127.0.0.1:{proxy.port}")
        calls = [await upstream.create(BODY, stream=False, timeout_s=5) for _ in range(2)]
        await upstream.aclose()

    assert all(isinstance(call.outcome, Answer) for call in calls)
    (head,) = proxy.heads  # the connection was kept
    assert head.startswith(f"POST {gateway.url}/v1/responses HTTP/1.1")
    assert f"proxy-authorization: {LOGIN}".lower() in head.lower()


async def test_the_proxy_of_a_secure_gateway_sees_neither_key_nor_prompt(proxy: Proxy) -> None:
    authority = trustme.CA()
    trusting, trusted = ssl.create_default_context(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.configure_trust(trusting)  # pyright: ignore[reportUnknownMemberType]  # PyOpenSSL is absent
    authority.issue_cert("127.0.0.1").configure_cert(trusted)  # pyright: ignore[reportUnknownMemberType]  # as above
    async with serve(replies(plain(RESPONSE)), trusted) as gateway:
        upstream = Upstream(
            "default", gateway.url, lambda: KEY, ssl_context=trusting, proxy=f"http://127.0.0.1:{proxy.port}"
        )
        call = await upstream.create(BODY, stream=False, timeout_s=5)
        await upstream.aclose()

    assert isinstance(call.outcome, Answer)
    assert gateway.requests[0].headers["authorization"] == f"Bearer {KEY}"
    (head,) = proxy.heads
    assert head.startswith(f"CONNECT 127.0.0.1:{gateway.port} ")
    assert KEY not in head


async def test_doctor_asks_as_the_worker_calls(proxy: Proxy) -> None:
    async def list_models(peer: Conversation) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.send(plain(b"{}"))

    async with serve(list_models) as gateway:
        through = f"http://127.0.0.1:{proxy.port}"
        first = await asyncio.to_thread(lambda: next(examine_gateway(gateway.url, "", proxy_for=lambda _: through)))

    assert "answers in" in first.seen
    assert proxy.heads[0].startswith(f"GET {gateway.url}/v1/models")


@pytest.mark.parametrize(
    ("environment", "proxied"),
    [
        ({}, ""),
        ({"HTTPS_PROXY": "http://p:3128"}, "http://p:3128"),
        ({"https_proxy": "p:3128"}, "http://p:3128"),
        ({"HTTP_PROXY": "http://p:3128"}, ""),
        ({"HTTPS_PROXY": "http://p:3128", "NO_PROXY": "other,example.com"}, ""),
        ({"HTTPS_PROXY": "http://p:3128", "NO_PROXY": "*"}, ""),
    ],
)
def test_the_environment_names_a_proxy(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], proxied: str
) -> None:
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "https_proxy", "http_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    assert environment_proxy("https://gateway.example.com") == proxied
    assert load(upstream_url="https://gateway.example.com").proxy_for("https://gateway.example.com") == proxied
    own = load(upstream_proxy="http://own:1")
    assert own.proxy_for("https://gateway.example.com") == "http://own:1"


def test_a_proxy_that_cannot_be_used_ends_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WrongSettingsError, match=r"^WORKER_UPSTREAM_PROXY: must be http://host:port"):
        load(upstream_proxy="socks5://us:secret@p:1080")
    monkeypatch.setenv("HTTPS_PROXY", "socks5://us:secret@p:1080")
    with pytest.raises(WrongSettingsError, match=r"^HTTPS_PROXY: must be http://host:port") as raised:
        check_keys(load(upstream_url="https://gateway.example.com"))
    assert "secret" not in str(raised.value)
