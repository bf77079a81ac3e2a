"""Sentinel URLs lead to the primary, also past a sentinel that hangs."""

import socket
import time
from collections.abc import Generator
from typing import Any

import pytest
from support.redis_parts import sentinel, sentinel_url

from worker.devtools.devstack import EmbeddedValkey
from worker.storage.connection import RedisTarget


@pytest.fixture
def watching(valkey_server: EmbeddedValkey) -> Generator[int]:
    with sentinel(valkey_server) as port:
        yield port


@pytest.fixture
def silent() -> Generator[int]:
    """A port that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


async def test_a_silent_sentinel_is_passed_over(watching: int, silent: int, valkey: Any) -> None:
    """Soon enough for a lease to be renewed, and for a batch of calls to be sent."""
    valkey.set("here", "1")
    target = RedisTarget.parse(sentinel_url(silent, watching))

    began = time.monotonic()
    with target.client() as blocking:
        assert blocking.get("here") == b"1"
    async with target.async_client() as client:
        assert await client.get("here") == b"1"
        pool: Any = client.connection_pool
        await pool.sentinel_manager.aclose()

    assert time.monotonic() - began < 4
