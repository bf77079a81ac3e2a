"""A server with one Redis user for each role."""

from collections.abc import Generator

import pytest
import redis
from support.redis_users import users_of

from worker.operations.acl import ROLES


@pytest.fixture
def users(valkey: redis.Redis) -> Generator[redis.Redis]:
    """The server's administrator. The server has a user for each role."""
    with users_of(valkey, *ROLES):
        yield valkey
