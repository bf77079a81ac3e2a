"""A ledger on an empty Valkey, and its cleaner."""

from collections.abc import AsyncGenerator

import pytest
import redis
from support.cleaner_parts import House, keeper
from support.heard import Heard
from support.ledger_parts import Desk, on_movable_clock, open_desk

from worker.queue import retention
from worker.queue.retention import RETENTION


@pytest.fixture
async def desk(valkey: redis.Redis, redis_url: str) -> AsyncGenerator[Desk]:
    async with open_desk(valkey, redis_url) as desk:
        yield desk


@pytest.fixture
async def house(valkey: redis.Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[House]:
    monkeypatch.setattr(retention, "RETENTION", on_movable_clock(RETENTION))
    heard = Heard()
    async with open_desk(valkey, redis_url) as desk:
        yield House(desk, keeper(desk, heard), heard)
