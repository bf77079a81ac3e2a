"""Redis users made from the ACL rules of each role."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import redis

from worker.operations import acl

PASSWORD = "canary-password-5e0b"


def url_of(role: acl.Role, redis_url: str) -> str:
    return redis_url.replace("redis://", f"redis://{role.name}:{PASSWORD}@")


def client_of(role: acl.Role, redis_url: str) -> Any:
    return redis.Redis.from_url(url_of(role, redis_url))  # pyright: ignore[reportUnknownMemberType]  # untyped kwargs


@contextmanager
def users_of(admin: Any, *roles: acl.Role) -> Generator[None]:
    """One user for each role, made as docs/reference/acl.md says, and gone afterwards; the ACL log begins empty."""
    for role in roles:
        for command in role.setuser(PASSWORD):
            admin.execute_command(*command.split(" "))
    admin.acl_log_reset()
    try:
        yield
    finally:
        admin.acl_deluser(*(role.name for role in roles))


def denials(admin: Any, role: acl.Role) -> list[tuple[str, str]]:
    """The server's refusals to this role's user: the kind, and the command, key or channel."""
    entries = [{_text(key): _text(value) for key, value in entry.items()} for entry in admin.acl_log()]
    return [(entry["reason"], entry["object"]) for entry in entries if entry["username"] == role.name]


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
