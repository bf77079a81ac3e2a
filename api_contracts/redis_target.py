"""One Redis URL, as Celery users write it, for workers and for services.

`redis://`, `rediss://`, `redis+socket://` / `unix://` and `sentinel://a:26379;sentinel://b:26379/0?master_name=m`
all work. redis-py and kombu spell TLS options and Sentinel differently; this is the one place that knows both.
"""

import re
import ssl
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Self
from urllib.parse import parse_qsl, unquote

import redis
import redis.asyncio
import redis.asyncio.sentinel
import redis.sentinel
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from api_contracts import urls

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
    def parse(cls, url: str) -> Self:
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

    def blocking(self, **options: Any) -> redis.Redis:
        """A client for threads and command lines, with redis-py's options."""
        options = self._login() | options
        if self.scheme == "sentinel":
            asks = _sentinel_options(Retry(NoBackoff(), 0))
            sentinel: Any = redis.sentinel.Sentinel(list(self.hosts), sentinel_kwargs=asks)
            return sentinel.master_for(self.master_name, **options)
        if self.scheme == "unix":
            return redis.Redis(unix_socket_path=self.path, **_without_tcp(options))
        host, port = self.hosts[0]
        return redis.Redis(host=host, port=port, **options, **self.tls)

    def asynchronous(self, **options: Any) -> redis.asyncio.Redis:
        """A client for one event loop, with redis-py's options."""
        options = self._login() | options
        if self.scheme == "sentinel":
            asks = _sentinel_options(AsyncRetry(NoBackoff(), 0))
            sentinel: Any = redis.asyncio.sentinel.Sentinel(list(self.hosts), sentinel_kwargs=asks)
            return sentinel.master_for(self.master_name, **options)
        if self.scheme == "unix":
            return redis.asyncio.Redis(unix_socket_path=self.path, **_without_tcp(options))
        host, port = self.hosts[0]
        return redis.asyncio.Redis(host=host, port=port, **options, **self.tls)

    def _login(self) -> dict[str, Any]:
        return {"db": self.db, "username": self.username, "password": self.password}


def _without_tcp(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name != "socket_keepalive"}


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
