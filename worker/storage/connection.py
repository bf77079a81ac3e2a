"""The worker's connections to Redis: its time limits, and the broker's options in kombu's words."""

import re
from typing import Any, Final

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from api_contracts import redis_target

SOCKET_TIMEOUT_S: Final = 5.0
"""No command of ours blocks, so a reply this late means a dead peer."""

OPTIONS: Final[dict[str, Any]] = {
    "socket_timeout": SOCKET_TIMEOUT_S,
    "socket_connect_timeout": SOCKET_TIMEOUT_S,
    "socket_keepalive": True,
    "health_check_interval": 10,
    "client_name": "responses-worker",
}


class RedisTarget(redis_target.RedisTarget):
    """Redis' address and credentials, and the clients that a worker makes of them."""

    def client(self, **overrides: Any) -> redis.Redis:
        """A blocking client, for threads and command lines."""
        # Lost replies are asked for again by whoever knows that the command is safe to repeat.
        return self.blocking(**OPTIONS | {"retry": Retry(NoBackoff(), 0)} | overrides)

    def async_client(self, **overrides: Any) -> redis.asyncio.Redis:
        """A client for the worker's loop, which waits for replies without limit: its users set one per round trip.

        redis-py would set a timer for every reply, and start a task for every write.
        """
        lean: dict[str, Any] = {
            "retry": AsyncRetry(NoBackoff(), 0),
            "socket_timeout": None,
            "protocol": 2,  # nothing is pushed, so the pool sees by what can be read that a connection is spoilt
        }
        return self.asynchronous(**OPTIONS | lean | overrides)

    @property
    def broker_url(self) -> str:
        """The URL as kombu reads it: it knows `master_name` only as an option, and sockets by its own scheme."""
        if self.scheme == "unix":
            return re.sub(r"^unix://", "redis+socket://", self.url)
        return re.sub(r"[?&]master_name=[^&;]*", "", self.url) if self.scheme == "sentinel" else self.url

    def broker_options(self) -> dict[str, Any]:
        """The options that kombu wants beside the URL (`broker_transport_options`)."""
        options: dict[str, Any] = {
            # More than kombu's own blocking pop of 1 s; little, because Celery says goodbye to Redis before it exits.
            "socket_timeout": 3,
            "socket_connect_timeout": SOCKET_TIMEOUT_S,
            "socket_keepalive": self.scheme != "unix",
            "health_check_interval": 10,
            "client_name": "responses-worker-control",
        }
        return options | ({"master_name": self.master_name} if self.master_name else {})
