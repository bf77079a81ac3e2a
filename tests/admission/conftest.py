"""A budget or routes under a clock that the test moves, or rooms on the real clock; all on an empty Valkey."""

from collections.abc import AsyncGenerator

import pytest
import redis
from support.admission_parts import Budget, open_budget
from support.admission_queue_parts import FAST, Rooms, opened
from support.route_parts import Routes, open_routes


@pytest.fixture
async def budget(valkey: redis.Redis, redis_url: str, request: pytest.FixtureRequest) -> AsyncGenerator[Budget]:
    """Ten requests a second, or the limits of the test's `limits` marker."""
    marker = request.node.get_closest_marker("limits")
    async with open_budget(valkey, redis_url, **(marker.kwargs if marker else {})) as budget:
        yield budget


@pytest.fixture
async def routes(valkey: redis.Redis, redis_url: str, request: pytest.FixtureRequest) -> AsyncGenerator[Routes]:
    async with open_routes(valkey, redis_url, request.param) as routes:
        yield routes


@pytest.fixture
async def rooms(valkey: redis.Redis, redis_url: str) -> AsyncGenerator[Rooms]:
    """A thousand calls a second."""
    async with opened(valkey, redis_url, requests_per_minute=FAST) as rooms:
        yield rooms
