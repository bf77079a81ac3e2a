"""News of a request, told by Redis instead of asked for: a caller that waits learns of a result within a millisecond.

The guarantee of the workers' side: every step of a request is a write to its hash (`request_key(tenant, id)`), and the
result is written there with its final state, in one script. So it is enough to be told that this key changed. Redis
tells it to whoever asks (redis.io/docs/latest/develop/reference/client-side-caching):

1. On a connection that speaks RESP3, once: `CLIENT TRACKING ON`.
2. On the same connection: `HMGET responses:request:<tenant>:<id> state token fingerprint result`. Redis remembers that
   this connection has read the key, for one change.
3. On any change of the key the connection gets the push `["invalidate", [key, ...]]`; `["invalidate", None]` means
   every key, after a flush. Then read again, as in 2: about four times in a request's life.

A key that does not exist yet is remembered as well. One connection can wait for any number of keys. News are lost only
with the connection, so read every key again after each connect, and every `SWEEP_S` in any case. A server or a proxy
that refuses the first step is read at a pace (`polling.paces`).
"""

import os
import time
from collections.abc import Generator
from typing import Any, Final

from redis import RedisError, ResponseError
from redis.exceptions import ConnectionError as Unreachable
from redis.exceptions import TimeoutError as Silent

from api_contracts.polling import paces

SWEEP_S: Final = 5.0
"""The longest time between two looks at a key, whatever was told."""

_KEPT: Final = 64
"""Connections kept for the next who wait."""

_LOST: Final = (Unreachable, Silent, OSError)


class KeyWatch:
    """One connection that is told when what was read through it changes; for one thread at a time."""

    whole: bool = False
    """Whether it is connected and no reply is owed."""

    def __init__(self, pool: Any) -> None:
        """Raises RedisError where the server cannot be reached or does not do this."""
        options: dict[str, Any] = pool.connection_kwargs | {"protocol": 3}
        if "maint_notifications_config" in options:  # redis-py would ask the server for those of its maker
            options["maint_notifications_config"] = None
        self._connection: Any = pool.connection_class(**options)
        self._connection.connect()
        self._call("CLIENT", "TRACKING", "ON")

    def hmget(self, key: str, *fields: str) -> list[bytes | None]:
        """The fields of a hash, from now on watched until it changes. Raises RedisError."""
        return self._call("HMGET", key, *fields)

    def await_change(self, timeout_s: float) -> None:
        """Returns when a watched key has changed, or the time is up. Raises RedisError."""
        while self._connection.can_read(timeout=timeout_s):
            self._connection.read_response(push_request=True)
            timeout_s = 0

    def close(self) -> None:
        self._connection.disconnect()

    def _call(self, *words: str) -> Any:
        self.whole = False  # also where the caller is interrupted: redis-py would connect again, and nothing be watched
        self._connection.send_command(*words)
        reply = self._connection.read_response()
        self.whole = True
        return reply


class Watches:
    """Turns to look at a key: the first at once, the others when it changed. Safe to share between threads.

    Each thread that waits has a connection of its own for that time.
    """

    def __init__(self, redis: Any) -> None:
        self.redis = redis
        self.refused = not hasattr(redis, "connection_pool")  # a client of more than one server
        self._kept: list[KeyWatch] = []
        self._pid = os.getpid()

    def turns(self, timeout_s: float) -> Generator["Reader"]:
        """Yields, at least once and for the last time when the time is up, what to read the key with."""
        give_up_at, pauses, reader = time.monotonic() + timeout_s, paces(), Reader(self)
        try:
            while (left_s := give_up_at - time.monotonic()) > 0:
                yield reader
                reader.await_change(left_s, next(pauses))
            yield reader
        finally:
            reader.release()

    def take(self) -> KeyWatch | None:
        """None where there are to be none, or none can be had now."""
        if self._pid != os.getpid():  # after a fork these sockets belong to the parent as well
            self._kept, self._pid = [], os.getpid()
        try:
            return None if self.refused else self._kept.pop() if self._kept else KeyWatch(self.redis.connection_pool)
        except ResponseError:
            self.refused = True
        except (RedisError, OSError):
            pass
        return None

    def keep(self, watch: KeyWatch) -> None:
        if watch.whole and len(self._kept) < _KEPT and self._pid == os.getpid():
            self._kept.append(watch)
        else:
            watch.close()

    def close(self) -> None:
        while self._kept:
            self._kept.pop().close()


class Reader:
    """Reads keys for one wait: through a watch, or, where that fails, as the client reads everything else."""

    def __init__(self, watches: Watches) -> None:
        self._watches = watches
        self._watch: KeyWatch | None = None

    def hmget(self, key: str, *fields: str) -> list[bytes | None]:
        """Raises RedisError where the client's own read fails too."""
        self._watch = self._watch or self._watches.take()
        if self._watch is not None:
            try:
                return self._watch.hmget(key, *fields)
            except _LOST:
                self._drop()
        return self._watches.redis.hmget(key, *fields)

    def await_change(self, timeout_s: float, pace_s: float) -> None:
        """Returns when a key that was read has changed, or it is time to look in any case."""
        if self._watch is None:
            time.sleep(min(timeout_s, pace_s))
            return
        try:
            self._watch.await_change(min(timeout_s, SWEEP_S))
        except _LOST:
            self._drop()

    def release(self) -> None:
        if self._watch is not None:
            self._watches.keep(self._watch)
            self._watch = None

    def _drop(self) -> None:
        if self._watch is not None:
            self._watch.close()
            self._watch = None
