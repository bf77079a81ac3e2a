"""Metrics that only the own pod may read, and probes that everybody may."""

import http.client
import socket
from collections.abc import Generator

import pytest
from prometheus_client import CollectorRegistry

from worker.runtime.probes import ProbeAnswer, Probes, ProbeServer


def own_address() -> str:
    """An address of this machine that is not loopback, as its neighbours use."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # no packet is sent
        except OSError:
            pytest.skip("this machine has no address but loopback")
        return probe.getsockname()[0]


@pytest.fixture(params=["anywhere", "loopback"])
def server(request: pytest.FixtureRequest) -> Generator[ProbeServer]:
    with socket.create_server(("", 0)) as free:
        port: int = free.getsockname()[1]
    fine = ProbeAnswer(ok=True, facts={})
    probes = Probes(live=lambda: fine, ready=lambda: fine, metrics=CollectorRegistry(), metrics_from=request.param)
    opened = ProbeServer(port, probes)
    yield opened
    opened.close()


def status(server: ProbeServer, host: str, path: str) -> int:
    connection = http.client.HTTPConnection(host, server.port, timeout=5)
    connection.request("GET", path)
    with connection.getresponse() as response:
        found = response.status
    connection.close()
    return found


def test_only_metrics_are_kept_to_the_pod(server: ProbeServer, request: pytest.FixtureRequest) -> None:
    """Over IPv4, which a dual-stack socket sees as IPv6."""
    neighbour = own_address()

    assert status(server, "127.0.0.1", "/metrics") == 200
    expected = 403 if "loopback" in request.node.name else 200
    assert status(server, neighbour, "/metrics") == expected
    for path in ("/livez", "/readyz"):
        assert status(server, neighbour, path) == status(server, "127.0.0.1", path) == 200
