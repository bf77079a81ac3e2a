"""Refusals of Redis: those that pass by themselves, those that stay, and the words for both."""

from typing import Final

from redis.exceptions import (
    ClusterDownError,
    MasterDownError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    TryAgainError,
)

_PASSING: Final = (
    OutOfMemoryError,
    ReadOnlyError,
    NoPermissionError,
    MasterDownError,
    ClusterDownError,
    TryAgainError,
)
_PASSING_TEXTS: Final = ("ACL failure in script", "MISCONF", "NOREPLICAS", "BUSY ", "UNBLOCKED")
"""redis-py strips the code of the errors it has a class for, and has no class for these."""


class ScriptError(Exception):
    """The script refused or failed; the message names the Redis error, never an argument."""


def may_pass(error: Exception) -> bool:
    """True for what a restart, a failover, freed memory or a repaired password or permission puts right by itself."""
    if not isinstance(error, ResponseError):
        return True  # of the connection, not of the command
    return isinstance(error, _PASSING) or str(error).startswith(_PASSING_TEXTS)


def kind_of(error: Exception) -> str:
    """The kind of an error in a word or two; it quotes no value."""
    # redis-py has a class for most refusals; the others begin with a text that says which they are.
    return str(error).split(":")[0][:80] if type(error) is ResponseError else type(error).__name__
