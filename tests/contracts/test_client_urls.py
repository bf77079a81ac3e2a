"""URLs of Redis, as workers take them, in both clients."""

import ssl
import threading
from pathlib import Path
from typing import Any

import pytest
import trustme
from chaos.proxy import Proxy
from support import published
from support.both_clients import KINDS, opened
from support.producer import body
from support.redis_parts import sentinel, sentinel_url


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def test_sentinel_urls_as_workers_take_them(kind: str, valkey: Any, valkey_server: Any) -> None:
    with sentinel(valkey_server) as port, opened(kind, sentinel_url(port)) as client:
        ticket = client.enqueue(body())
        threading.Timer(0.1, published.answer, (valkey, ticket)).start()

        assert client.wait(ticket, timeout_s=10).request_id == ticket.request_id


def test_tls_urls_as_workers_take_them(kind: str, valkey: Any, valkey_server: Any, tmp_path: Path) -> None:
    """A wait reads and writes its connection by turns, as TLS asks for."""
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)  # pyright: ignore[reportUnknownMemberType]  # it takes pyOpenSSL's too
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    with (
        Proxy(valkey_server.port, context) as proxy,
        opened(kind, f"rediss://127.0.0.1:{proxy.port}/0?ssl_ca_certs={tmp_path / 'ca.pem'}") as client,
    ):
        ticket = client.enqueue(body(stream=True))
        threading.Timer(0.1, published.answer, (valkey, ticket)).start()
        assert client.wait(ticket, timeout_s=10).request_id == ticket.request_id
        published.stream(valkey, ticket, 1, "finished")
        assert [delta.type for delta in client.deltas(ticket)] == ["finished"]


@pytest.mark.parametrize("url", ["http://redis", "sentinel://a:26379/0", "redis://u:canary/0815@host"])
def test_a_url_that_is_none_is_refused_without_a_part_of_it(kind: str, url: str) -> None:
    with pytest.raises(ValueError, match=r"must start with|needs \?master_name|well-formed") as refused:
        opened(kind, url).__enter__()

    assert "0815" not in str(refused.value)
