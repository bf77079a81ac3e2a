"""The refusals of each role, tried by its user on a real server."""

from typing import Any

import pytest
from redis.exceptions import NoPermissionError
from support.redis_users import client_of

from worker.operations.acl import CLIENT, CONSUMER, OPERATOR, PRODUCER, ROLES, WORKER, Role

CANCEL_MARK = "responses:cancel:default:order-1"


MAY_NOT: dict[Role, list[str]] = {
    PRODUCER: [
        "SCAN 0",
        "RPOP responses.interactive",
        "DEL responses.interactive",
        "SET responses.interactive x",
        "SET responses:request:default:order-1 x",
        f"SET {CANCEL_MARK} x GET",
        "GET anything",
        "HGETALL responses:request:default:order-1",
        "HGETALL responses:inflight:interactive",
        "LPUSH responses:dead x",
        "LPUSH celery x",
        "XADD responses:results * result x",
        "XRANGE responses:results - +",
        "XRANGE responses:dead - +",
        "SADD _kombu.binding.celery.pidbox x",
        "PUBLISH /0.celery.pidbox {}",
        "PSUBSCRIBE *",
    ],
    CONSUMER: [
        "SCAN 0",
        "LPUSH responses.interactive x",
        "HGETALL responses:inflight:interactive",
        "HGETALL responses:parked:interactive",
        "HSET responses:request:default:order-1 state x",
        "DEL responses:results",
        "XADD responses:results * result x",
        "XDEL responses:results 1-1",
        "XTRIM responses:results MAXLEN 0",
        "XGROUP DESTROY responses:results billing",
        "XRANGE responses:dead - +",
        "XREAD STREAMS responses:dead 0",
        f"SET {CANCEL_MARK} x",
        "PUBLISH /0.celery.pidbox {}",
        "PSUBSCRIBE *",
    ],
    CLIENT: [
        "SCAN 0",
        "HGETALL responses:inflight:interactive",
        "HSET responses:request:default:order-1 state x",
        "XADD responses:results * result x",
        "XRANGE responses:dead - +",
        "ZREM responses:delayed:interactive x",
        "ZADD responses:leases:interactive 0 x",
        "PUBLISH /0.celery.pidbox {}",
        "PSUBSCRIBE *",
    ],
    WORKER: [
        "GET anything",
        "SET anything x",
        "LPUSH celery x",
        "DEL responses.interactive",
        "XRANGE responses:results - +",
        "XREAD STREAMS responses:results 0",
        "XGROUP DESTROY responses:results billing",
        "PUBLISH elsewhere x",
        "PSUBSCRIBE *",
        "SCRIPT FLUSH",
    ],
    OPERATOR: [
        "GET anything",
        "DEL responses.interactive",
        "HGETALL responses:inflight:interactive",
        "XRANGE responses:results - +",
        "XADD responses:results * result x",
        "HGETALL responses:request:default:order-1",
        "PSUBSCRIBE *",
        "SCRIPT FLUSH",
    ],
}
MAY_NEVER = [
    *("FLUSHALL", "FLUSHDB", "KEYS *", "RANDOMKEY", "SHUTDOWN", "MONITOR", "REPLICAOF NO ONE", "SAVE"),
    *("CONFIG GET *", "CONFIG SET dir /", "ACL LIST", "ACL SETUSER any", "CLIENT LIST", "FUNCTION LIST"),
]


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_no_role_does_what_is_not_its_job(users: Any, redis_url: str, role: Role) -> None:
    """Not another role's work, not other applications' keys, and nothing that loses or shows everything."""
    users.set("anything", "secret")
    someone = client_of(role, redis_url)
    allowed: list[str] = []
    for command in MAY_NOT[role] + MAY_NEVER:
        try:
            someone.execute_command(*command.split(" "))
        except NoPermissionError:
            continue
        allowed.append(command)
    someone.close()

    assert allowed == []


@pytest.mark.parametrize("role", [PRODUCER, CONSUMER, CLIENT], ids=lambda role: role.name)
@pytest.mark.usefixtures("users")
def test_who_needs_no_scripts_may_run_none(redis_url: str, role: Role) -> None:
    someone = client_of(role, redis_url)

    for command in (("EVAL", "return 1", "0"), ("EVALSHA", "0" * 40, "0"), ("SCRIPT", "LOAD", "return 1")):
        with pytest.raises(NoPermissionError):
            someone.execute_command(*command)
    someone.close()
