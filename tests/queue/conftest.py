"""A ledger on an empty Valkey."""

from collections.abc import AsyncGenerator

import pytest
import redis
from support.ledger_parts import Desk, open_desk


@pytest.fixture
async def desk(valkey: redis.Redis, redis_url: str) -> AsyncGenerator[Desk]:
    async with open_desk(valkey, redis_url) as desk:
        yield desk
