"""The worker's connections to Redis: its time limits, and the broker's options in kombu's words."""

from typing import Any, Final, Self
from urllib.parse import parse_qsl, urlencode

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

_TLS: Final = ("ssl_cert_reqs", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_OPTIONS_OF: Final = {
    "redis": ("db",),
    "rediss": ("db", *_TLS),
    "unix": ("db", "virtual_host"),
    "sentinel": ("db", "master_name"),
}
"""The options that a URL may have behind its question mark."""


class RedisTarget(redis_target.RedisTarget):
    """Redis' address and credentials, and the clients that a worker makes of them."""

    @classmethod
    def parse(cls, url: str) -> Self:
        """Raises ValueError, naming what would be right: an option that kombu does not know would end its start."""
        target = super().parse(url)
        known = _OPTIONS_OF[target.scheme]
        if any(name not in known for name, _ in parse_qsl(url.partition("?")[2], keep_blank_values=True)):
            raise ValueError(f"may have no other options behind its ? than {', '.join(known)}")
        return target

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
        """The URL as kombu reads it.

        kombu has words of its own for sockets and databases, and takes `master_name` only as an option. Unlike
        redis-py, it believes any certificate where the URL says nothing about that.
        """
        base, _, query = self.url.partition("?")
        server = base.partition("://")[2]
        if self.scheme == "unix":
            return f"redis+socket://{server}?virtual_host={self.db}"
        if self.scheme == "sentinel":
            return base
        url = f"{self.scheme}://{server.partition('/')[0]}/{self.db}"
        return f"{url}?{_tls_of_kombu(query)}" if self.scheme == "rediss" else url

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


def _tls_of_kombu(query: str) -> str:
    given = {name: value for name, value in parse_qsl(query) if name in _TLS}
    requirement = given.get("ssl_cert_reqs", "required").lower().removeprefix("cert_")
    return urlencode(given | {"ssl_cert_reqs": requirement})
