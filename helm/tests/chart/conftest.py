"""The ground of the rendered scaling: a Valkey of our own, and a real worker on it."""

from collections.abc import Generator

import pytest
from support.producer import Producer
from support.worker_process import Fleet

from worker.devtools.devstack import Simulator, embedded_valkey, simulated_gateway


@pytest.fixture(scope="session")
def redis_server() -> Generator[str]:
    with embedded_valkey() as server:
        yield server.url


@pytest.fixture
def producer(redis_server: str) -> Generator[Producer]:
    """Of an empty server."""
    with Producer(redis_server) as producer:
        producer.redis.flushall()
        yield producer


@pytest.fixture
def gateway() -> Generator[Simulator]:
    with simulated_gateway() as simulator:
        yield simulator


@pytest.fixture
def fleet(redis_server: str, producer: Producer, gateway: Simulator) -> Generator[Fleet]:
    assert producer.redis.dbsize() == 0
    with Fleet(redis_server, gateway.url) as fleet:
        yield fleet
