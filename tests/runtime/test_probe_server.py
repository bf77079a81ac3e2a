"""The probes' port among clients that never finish: bounded threads and connections, and an answer for a real probe."""

import socket
import threading
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, suppress

import pytest
from prometheus_client import CollectorRegistry, Counter
from support.captured_log import captured_log
from support.polling import wait_until
from support.probe_client import Probe

from worker.runtime import probes
from worker.runtime.probes import ProbeAnswer, Probes, ProbeServer

Opener = Callable[[], ProbeServer]


@pytest.fixture
def registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    Counter("calls", "Calls.", registry=registry).inc()
    return registry


@pytest.fixture
def server(registry: CollectorRegistry) -> Generator[ProbeServer]:
    fine = Probes(live=lambda: ProbeAnswer(True, {}), ready=lambda: ProbeAnswer(False, {"why": "x"}), metrics=registry)
    with captured_log():
        server = ProbeServer(0, fine)
        yield server
        server.close()


def exchanged(port: int, request: bytes, timeout_s: float = 10) -> bytes:
    """All that the server says before it closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as client:
        client.sendall(request)
        said = b""
        while chunk := client.recv(65536):
            said += chunk
        return said


def cut_off(client: socket.socket) -> bool:
    """Whether the server has ended the connection, without a word."""
    try:
        return not client.recv(1)
    except OSError as error:
        return isinstance(error, ConnectionError)


@contextmanager
def dripping(port: int, clients: int) -> Generator[list[socket.socket]]:
    """Clients that send a first line and then one byte now and then."""
    stop = threading.Event()
    with ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10)) for _ in range(clients)
        ]

        def drip() -> None:
            piece = b"GET /livez HTTP/1.1\r\nX: "
            while not stop.wait(0.2):
                for client in sockets:
                    try:
                        client.send(piece)
                    except OSError:
                        continue  # closed by the server
                piece = b"x"

        dripper = threading.Thread(target=drip)
        dripper.start()
        try:
            yield sockets
        finally:
            stop.set()
            dripper.join()


def test_clients_that_drip_cost_no_threads_and_delay_no_probe(server: ProbeServer) -> None:
    """900 of them: the number of threads stays, and a probe is answered at once all the while."""
    probe = Probe(server.port)
    assert probe.status("/metrics") == 200
    threads = threading.active_count()

    with dripping(server.port, 900):
        for _ in range(20):
            asked = time.monotonic()
            assert probe.status("/livez") == 200
            assert time.monotonic() - asked < 1
        assert threading.active_count() == threads + 1  # the dripper
        assert probe.status("/metrics") == 200


def test_a_request_has_a_limit_in_all(server: ProbeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes that keep coming do not extend it."""
    monkeypatch.setattr(probes, "REQUEST_S", 0.6)
    with dripping(server.port, 1) as (client,):
        begun = time.monotonic()
        wait_until(lambda: cut_off(client), what="the end of the connection")
        assert time.monotonic() - begun < 3


def test_a_slow_scrape_delays_no_probe(server: ProbeServer, registry: CollectorRegistry) -> None:
    """Redis may let /metrics wait; /livez answers from a thread of its own."""
    go_on = threading.Event()

    class Slow:
        def collect(self) -> list[object]:
            go_on.wait(10)
            return []

    registry.register(Slow())  # pyright: ignore[reportArgumentType]  # a collector that never gives a metric
    scraper = threading.Thread(target=lambda: Probe(server.port).status("/metrics"))
    try:
        go_on.set()
        registry.collect()
        go_on.clear()
        scraper.start()
        assert Probe(server.port).status("/livez") == 200
    finally:
        go_on.set()
        scraper.join()


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        ("GET /livez HTTP/1.1", 200),
        ("GET /livez?verbose=1 HTTP/1.0", 200),
        ("HEAD /livez HTTP/1.1", 200),
        ("GET /readyz HTTP/1.1", 503),
        ("GET / HTTP/1.1", 404),
        ("GET /livez/ HTTP/1.1", 404),
        ("POST /livez HTTP/1.1", 405),
        ("GET", 404),
        ("", 405),
        ("\x00\xff", 405),
    ],
)
def test_whatever_is_asked_is_answered(server: ProbeServer, request_line: str, status: int) -> None:
    """Each with a length and a body of that length, but HEAD."""
    said = exchanged(server.port, request_line.encode("latin-1") + b"\r\nHost: x\r\n\r\n")
    head, _, body = said.partition(b"\r\n\r\n")

    assert head.startswith(f"HTTP/1.1 {status} ".encode())
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    assert len(body) == (0 if request_line.startswith("HEAD") else length)


def test_what_is_no_request_is_cut_off(server: ProbeServer) -> None:
    """A head without end is not collected in memory."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as client:
        client.settimeout(0.5)
        with suppress(OSError):
            client.sendall(b"x" * 1_000_000)
        assert cut_off(client)
    assert Probe(server.port).status("/livez") == 200


def test_prometheus_may_ask_for_openmetrics(server: ProbeServer) -> None:
    """As its own scraper does."""
    accept = b"Accept: application/openmetrics-text; version=1.0.0\r\n"
    said = exchanged(server.port, b"GET /metrics HTTP/1.1\r\n" + accept + b"\r\n")

    assert b"Content-Type: application/openmetrics-text" in said
    assert said.endswith(b"# EOF\n")


def test_a_port_of_its_own_is_reached_over_both_families(registry: CollectorRegistry) -> None:
    """Kubelets use the pod's address, of either family."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    fine = Probes(live=lambda: ProbeAnswer(True, {}), ready=lambda: ProbeAnswer(True, {}), metrics=registry)
    with captured_log():
        server = ProbeServer(port, fine)
        try:
            for host in ("127.0.0.1", "::1") if socket.has_dualstack_ipv6() else ("127.0.0.1",):
                with socket.create_connection((host, port), timeout=5) as client:
                    client.sendall(b"GET /livez HTTP/1.1\r\n\r\n")
                    assert client.recv(15) == b"HTTP/1.1 200 OK"
        finally:
            server.close()

    def closed() -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", port)) != 0

    wait_until(closed, what="a closed port")
