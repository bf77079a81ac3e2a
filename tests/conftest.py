"""Real parts for every test: a Valkey of our own, a simulated gateway on a socket, worker processes."""

import signal
from collections.abc import Generator
from typing import Any

import pytest
import redis
from kombu import pools as kombu_pools
from support.producer import Producer
from support.redis_parts import BadNetwork
from support.worker_process import Fleet

from worker.devtools.devstack import EmbeddedValkey, Simulator, embedded_valkey, simulated_gateway

# A process that a shell without job control starts in the background is deaf to SIGINT, and so are its children.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A process under `nohup` is deaf to SIGHUP. A handler keeps this process alive, and a new process does not inherit it.
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda _signal, _frame: None)


@pytest.fixture(scope="session")
def valkey_server() -> Generator[EmbeddedValkey]:
    with embedded_valkey() as server:
        yield server


@pytest.fixture
def valkey(valkey_server: EmbeddedValkey) -> Generator[redis.Redis]:
    """An empty server."""
    with redis.Redis.from_url(valkey_server.url) as client:  # pyright: ignore[reportUnknownMemberType]  # untyped kwargs
        client.flushall()  # pyright: ignore[reportUnknownMemberType]  # untyped kwargs
        yield client


@pytest.fixture
def redis_url(valkey: redis.Redis, valkey_server: EmbeddedValkey) -> str:
    """Of the server that `valkey` just emptied."""
    assert valkey.ping()  # pyright: ignore[reportUnknownMemberType]  # untyped kwargs
    return valkey_server.url


@pytest.fixture(scope="session")
def gateway_server() -> Generator[Simulator]:
    with simulated_gateway() as simulator:
        yield simulator


@pytest.fixture
def gateway(gateway_server: Simulator) -> Simulator:
    """A gateway with no limits, no latency and an empty call log."""
    gateway_server.configure(**_PLAIN)
    gateway_server.reset()
    return gateway_server


@pytest.fixture
def fleet(redis_url: str, gateway: Simulator) -> Generator[Fleet]:
    """Starts worker processes; whatever still runs at the end is killed."""
    with Fleet(redis_url, gateway.url) as fleet:
        yield fleet


@pytest.fixture
def producer(redis_url: str) -> Generator[Producer]:
    pools: Any = kombu_pools
    pools.reset()  # kombu keeps connections by URL for the whole process, those that an earlier test killed too
    with Producer(redis_url) as producer:
        yield producer


_PLAIN: dict[str, Any] = {
    "accounts": None,
    "requests_per_minute": 0,
    "tokens_per_minute": 0,
    "max_in_flight": 0,
    "latency_median_s": 0.0,
    "latency_sigma": 0.0,
    "fault_rates": {},
    "keys": [],
    "revoked_keys": [],
    "empty_wallets": [],
    "headers": "openai",
}


@pytest.fixture
def network(valkey_server: EmbeddedValkey, redis_url: str) -> Generator[BadNetwork]:
    """A way to Redis that a test may spoil."""
    assert redis_url == valkey_server.url
    with BadNetwork(valkey_server.port) as network:
        yield network
