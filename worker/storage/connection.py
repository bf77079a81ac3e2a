"""One Redis URL, as Celery users write it, for every client of ours.

`redis://`, `rediss://`, `redis+socket://` / `unix://` and `sentinel://a:26379;sentinel://b:26379/0?master_name=m`
all work. redis-py and kombu spell TLS options and Sentinel differently; this is the one place that knows both.
"""

import re
import ssl
from dataclasses import dataclass, field
from typing import Any, Final, Literal
from urllib.parse import parse_qsl, unquote

import redis
import redis.asyncio
import redis.asyncio.sentinel
import redis.sentinel
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from worker.storage import urls

SOCKET_TIMEOUT_S: Final = 5.0
"""No command of ours blocks, so a reply this late means a dead peer."""

SENTINEL_TIMEOUT_S: Final = 1.0
"""One that is silent this long is passed over; several may be, before one round trip has taken too long."""

_SCHEMES: Final = ("redis", "rediss", "sentinel", "unix", "redis+socket")
_CERT_REQS: Final = {
    "none": ssl.CERT_NONE,
    "optional": ssl.CERT_OPTIONAL,
    "required": ssl.CERT_REQUIRED,
    "cert_none": ssl.CERT_NONE,
    "cert_optional": ssl.CERT_OPTIONAL,
    "cert_required": ssl.CERT_REQUIRED,
}

Scheme = Literal["redis", "rediss", "sentinel", "unix"]


@dataclass(frozen=True, slots=True)
class RedisTarget:
    """Redis' address and credentials; the password never shows in its repr."""

    url: str = field(repr=False)
    scheme: Scheme
    hosts: tuple[tuple[str, int], ...]
    db: int
    username: str | None
    password: str | None = field(repr=False)
    path: str = ""
    master_name: str = ""
    tls: dict[str, Any] = field(default_factory=dict[str, Any])

    @classmethod
    def parse(cls, url: str) -> "RedisTarget":
        """Raises ValueError, naming what would be right, without echoing the URL (it may hold a password)."""
        parts = [urls.split(part) for part in url.split(";")]
        first, last = parts[0], parts[-1]
        if first.scheme not in _SCHEMES:
            raise ValueError("must start with redis://, rediss://, sentinel:// or unix://")
        options = dict(parse_qsl(last.query))
        if first.scheme == "sentinel" and not options.get("master_name"):
            raise ValueError("sentinel:// needs ?master_name=NAME at its end")
        if first.scheme in ("unix", "redis+socket"):
            return cls(
                url,
                "unix",
                (),
                _db(options.get("virtual_host", options.get("db", "0"))),
                _name(first.username),
                _name(first.password),
                path=first.path,
            )
        for part in parts:
            urls.refuse_stray_password(part)
        default_port = 26379 if first.scheme == "sentinel" else 6379
        return cls(
            url=url,
            scheme=first.scheme,  # pyright: ignore[reportArgumentType]  # checked against _SCHEMES above
            hosts=tuple((part.hostname or "127.0.0.1", part.port or default_port) for part in parts),
            db=_db(options.get("db") or last.path.strip("/") or "0"),
            username=_name(first.username),
            password=_name(first.password),
            master_name=options.get("master_name", ""),
            tls=_tls(options) if first.scheme == "rediss" else {},
        )

    def _options(self) -> dict[str, Any]:
        return {
            "db": self.db,
            "username": self.username,
            "password": self.password,
            "socket_timeout": SOCKET_TIMEOUT_S,
            "socket_connect_timeout": SOCKET_TIMEOUT_S,
            "socket_keepalive": True,
            "health_check_interval": 10,
            "client_name": "responses-worker",
        }

    def client(self, **overrides: Any) -> redis.Redis:
        """A blocking client, for threads and command lines."""
        # Lost replies are asked for again by whoever knows that the command is safe to repeat.
        retry = Retry(NoBackoff(), 0)
        options: dict[str, Any] = self._options() | {"retry": retry} | overrides
        if self.scheme == "sentinel":
            sentinel: Any = redis.sentinel.Sentinel(list(self.hosts), sentinel_kwargs=_sentinel_options(retry))
            return sentinel.master_for(self.master_name, **options)
        if self.scheme == "unix":
            options.pop("socket_keepalive")
            return redis.Redis(unix_socket_path=self.path, **options)
        host, port = self.hosts[0]
        return redis.Redis(host=host, port=port, **options, **self.tls)

    def async_client(self, **overrides: Any) -> redis.asyncio.Redis:
        """A client for the worker's loop, which waits for replies without limit: its users set one per round trip.

        redis-py would set a timer for every reply, and start a task for every write.
        """
        retry = AsyncRetry(NoBackoff(), 0)
        lean: dict[str, Any] = {
            "retry": retry,
            "socket_timeout": None,
            "protocol": 2,  # nothing is pushed, so the pool sees by what can be read that a connection is spoilt
        }
        options = self._options() | lean | overrides
        if self.scheme == "sentinel":
            sentinel: Any = redis.asyncio.sentinel.Sentinel(list(self.hosts), sentinel_kwargs=_sentinel_options(retry))
            return sentinel.master_for(self.master_name, **options)
        if self.scheme == "unix":
            options.pop("socket_keepalive")
            return redis.asyncio.Redis(unix_socket_path=self.path, **options)
        host, port = self.hosts[0]
        return redis.asyncio.Redis(host=host, port=port, **options, **self.tls)

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


def _sentinel_options(retry: Retry | AsyncRetry) -> dict[str, Any]:
    """By default redis-py knocks at each dead sentinel eleven times before it asks the next."""
    return {"socket_timeout": SENTINEL_TIMEOUT_S, "socket_connect_timeout": SENTINEL_TIMEOUT_S, "retry": retry}


def _name(quoted: str | None) -> str | None:
    return unquote(quoted) if quoted else None


def _db(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise ValueError("the database after the host must be a number, as in redis://host:6379/0")
    return int(text)


def _tls(options: dict[str, str]) -> dict[str, Any]:
    requirement = options.get("ssl_cert_reqs", "required").lower()
    if requirement not in _CERT_REQS:
        raise ValueError("ssl_cert_reqs must be required, optional or none")
    names = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
    given = {name: options[name] for name in names if name in options}
    return {"ssl": True, "ssl_cert_reqs": _CERT_REQS[requirement], **given}
