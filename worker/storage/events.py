"""The reports of this room: whether Redis serves."""

from typing import Protocol


class RedisEvents(Protocol):
    def redis_lost(self, error: str) -> None:
        """Redis stopped serving; `error` names the kind of error and quotes no value."""
        ...

    def redis_recovered(self) -> None:
        """Redis serves again."""
        ...


class Unheard:
    """RedisEvents without a listener, for commands and tests."""

    def redis_lost(self, error: str) -> None: ...
    def redis_recovered(self) -> None: ...
