"""The Redis clients that a client of ours works with: made from URLs, or the caller's own."""

from collections.abc import Sequence
from typing import Any, Final, cast

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

from api_contracts.redis_target import RedisTarget

_TIMEOUTS: Final[dict[str, Any]] = {
    "socket_timeout": 10,
    "socket_connect_timeout": 5,
    "socket_keepalive": True,
    "health_check_interval": 10,
    "client_name": "responses-client",
}
_TRIES: Final = 3
_PAUSES: Final = ExponentialBackoff(cap=0.5, base=0.05)


def listed(redis: Any) -> list[Any]:
    """One place or several."""
    several = isinstance(redis, Sequence) and not isinstance(redis, str)
    places: list[Any] = list(cast("Sequence[Any]", redis)) if several else [redis]
    if not places:
        raise ValueError("give at least one URL or client of Redis")
    return places


def made(clients: Sequence[Any], places: Sequence[Any]) -> list[Any]:
    """Those that were made here and are to be closed here, with the clients that ask their sentinels."""
    own = [client for client, place in zip(clients, places, strict=True) if isinstance(place, str)]
    managers = [getattr(client.connection_pool, "sentinel_manager", None) for client in own]
    return own + [sentinel for manager in managers if manager for sentinel in manager.sentinels]


def blocking(place: Any) -> Any:
    """A client for threads."""
    if isinstance(place, str):
        return RedisTarget.parse(place).blocking(**_TIMEOUTS, retry=Retry(_PAUSES, _TRIES))
    if isinstance(place, redis.asyncio.Redis):
        raise TypeError("ResponsesClient takes URLs or redis.Redis; for redis.asyncio.Redis, use AsyncResponsesClient")
    return _plain(place)


def asynchronous(place: Any) -> Any:
    """A client for an event loop."""
    if isinstance(place, str):
        return RedisTarget.parse(place).asynchronous(**_TIMEOUTS, retry=AsyncRetry(_PAUSES, _TRIES))
    if isinstance(place, redis.Redis):
        raise TypeError("AsyncResponsesClient takes URLs or redis.asyncio.Redis; for redis.Redis, use ResponsesClient")
    return _plain(place)


def _plain(client: Any) -> Any:
    """The client itself, but for kombu's that puts a prefix before keys: no worker would look there."""
    if getattr(client, "global_keyprefix", ""):
        raise ValueError(
            "give a URL, or a client without global_keyprefix: workers read plain keys, which all begin with responses"
        )
    return client
