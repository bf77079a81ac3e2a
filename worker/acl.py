"""What each role may do in Redis, as data: least privilege for producers, consumers, workers and operators.

Every grant is a selector of its own (Redis 7.0, redis.io/docs/latest/operate/oss_and_stack/management/security/acl),
so that a command is allowed on the keys it is for and on no others: a producer may `SET` a mark that cancels a request
and cannot `SET` a lane. `tests/test_acl.py` runs each role with nothing but its grants.

**Why producers cancel by key and not by `revoke`**: Celery's remote control is one channel for all its commands, and
`shutdown` is one of them. Who may publish there can stop the fleet, so that is an operator's.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from api_contracts.queues import DEAD_STREAM, RESULT_STREAM

CONNECTION: Final = (
    "hello", "auth", "ping", "select", "client|setname", "client|setinfo", "multi", "exec", "acl|whoami",
)  # fmt: skip
"""Set-up, health checks and transactions of redis-py and kombu; they reach no key."""


@dataclass(frozen=True, slots=True)
class Grant:
    """Commands, and the key patterns they are for: `%R~` reads, `%W~` writes, `~` both; no patterns, no keys."""

    purpose: str
    commands: tuple[str, ...]
    keys: tuple[str, ...] = ()

    @property
    def rule(self) -> str:
        """A selector, or plain rules where there are no keys."""
        commands = " ".join(f"+{command}" for command in self.commands)
        return f"({commands} {' '.join(self.keys)})" if self.keys else commands

    def calls(self) -> Iterator[tuple[str, ...]]:
        """One call for each command and pattern that this grant must let through."""
        for command in self.commands:
            for pattern in self.keys or ("",):
                yield call(command, pattern.partition("~")[2].replace("*", "any"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    name: str
    who: str
    grants: tuple[Grant, ...]
    channels: tuple[str, ...] = ()

    def setuser(self, password: str = "PASSWORD", *, db: int = 0) -> list[str]:
        """`ACL SETUSER` commands that make this user from nothing, in order; one line per grant."""
        base = [f"+{command}" for command in CONNECTION]
        start = [
            "reset",
            "on",
            f">{password}",
            "-@all",
            *base,
            *(f"&{channel.format(db=db)}" for channel in self.channels),
        ]
        lines = [" ".join(start), *(grant.rule for grant in self.grants)]
        return [f"ACL SETUSER {self.name} {line}" for line in lines]

    def calls(self) -> Iterator[tuple[str, ...]]:
        """Calls that this role must be allowed; none of them is meant to be made."""
        for grant in self.grants:
            yield from grant.calls()
        yield from (("PUBLISH", channel.replace("*", "any"), "") for channel in self.channels)


PRODUCER: Final = Role(
    name="producer",
    who="a service that enqueues with plain Celery, and cancels",
    grants=(
        Grant("enqueue, and ask a queue's length", ("lpush", "llen"), ("%W~responses.*",)),
        Grant(
            "declare a queue, as Celery does before it sends",
            ("sadd",),
            ("%W~_kombu.binding.responses.*", "%W~_kombu.binding_permanent.responses.*"),
        ),
        Grant("cancel a request, queued or parked", ("set",), ("%W~responses:cancel:*",)),
    ),
)

CONSUMER: Final = Role(
    name="consumer",
    who="a service that reads results, by group or by id",
    grants=(
        Grant(
            "read and acknowledge results as a group",
            (
                "xreadgroup",
                "xack",
                "xautoclaim",
                "xclaim",
                "xpending",
                "xread",
                "xrange",
                "xlen",
                "xgroup|create",
                "xgroup|createconsumer",
                "xgroup|delconsumer",
                "xinfo|groups",
                "xinfo|consumers",
            ),
            (f"~{RESULT_STREAM}", f"~{RESULT_STREAM}:*"),
        ),  # fmt: skip
        Grant("wait for one id", ("hget", "hmget"), ("%R~responses:request:*",)),
        Grant("follow the tokens of a streamed request", ("xread", "xrange"), ("%R~responses:deltas:*",)),
    ),
)

_SCRIPTS: Final = Grant("run scripts; what they call is checked as well", ("eval", "evalsha", "script|load"))
_LOOK: Final = Grant("server time and state, as `doctor` reads them", ("time", "info"))
_MAILBOXES: Final = Grant(
    "find and declare the mailboxes of Celery's remote control",
    (
        "evalsha", "script|load", "script|exists",
        "sadd", "srem", "smembers", "exists", "del", "zadd", "zrem", "zrangebyscore",
    ),
    ("~_kombu.binding*",),
)  # fmt: skip

WORKER: Final = Role(
    name="worker",
    who="`responses-worker run`",
    channels=("/{db}.celery.pidbox", "/{db}.celeryev/worker.*"),
    grants=(
        _SCRIPTS,
        _LOOK,
        Grant("take from the lanes and give back", ("lindex", "lrange", "rpop", "rpush"), ("~responses.*",)),
        Grant(
            "leases, requests, results, budgets",
            (
                "type", "exists", "del", "pexpireat", "set",
                "hget", "hmget", "hgetall", "hkeys", "hexists", "hset", "hdel", "hincrby",
                "zadd", "zrem", "zcard", "zscore", "zrangebyscore", "zremrangebyscore",
                "sadd", "srem", "sscan", "xadd", "xtrim", "xlen", "xpending", "xinfo|groups",
            ),
            ("~responses:*",),
        ),  # fmt: skip
        _MAILBOXES,
        Grant("hear remote control", ("psubscribe", "punsubscribe", "subscribe", "unsubscribe", "publish")),
        Grant("its own mailbox, and replies", ("llen", "lpush", "brpop", "del"), ("~*.celery.pidbox*", "~celeryev.*")),
        Grant(
            "Celery's own look for lost messages, of which there are none",
            ("set", "get", "del", "evalsha", "zrange", "zrevrangebyscore"),
            ("~unacked_mutex", "~unacked_index"),
        ),
    ),
)

OPERATOR: Final = Role(
    name="operator",
    who="`status`, `dead`, `pause`, `resume`, `celery inspect` and `control`",
    channels=("/{db}.celery.pidbox",),
    grants=(
        _SCRIPTS,
        _LOOK,
        Grant("count what waits", ("llen",), ("%R~responses.*",)),
        Grant(
            "count everything else; read no content",
            ("type", "exists", "hlen", "zrange", "zcard", "zcount", "xlen", "xinfo|groups", "smembers", "sscan"),
            ("%R~responses:*",),
        ),
        Grant("pause, resume, and change limits", ("hmget", "hgetall", "hset", "hdel"), ("~responses:quota:*",)),
        Grant("see, replay and drop dead letters", ("xrange", "xrevrange", "xdel"), (f"~{DEAD_STREAM}",)),
        Grant("put a dead letter back on its lane", ("lpush",), ("%W~responses.*",)),
        Grant("and let its id run anew", ("hmget", "del"), ("~responses:request:*",)),
        Grant("forget its kept result", ("zrem",), ("~responses:kept",)),
        Grant("cancel a request", ("set",), ("%W~responses:cancel:*",)),
        Grant("wake what is parked to hear of it", ("zadd",), ("~responses:delayed:*",)),
        Grant("remove a consumer group that nobody reads with", ("xgroup|destroy",), (f"~{RESULT_STREAM}*",)),
        _MAILBOXES,
        Grant("speak to all workers", ("publish",)),
        Grant("and hear their replies", ("llen", "lpush", "brpop", "del"), ("~*.reply.celery.pidbox*",)),
    ),
)

ROLES: Final = (PRODUCER, CONSUMER, WORKER, OPERATOR)

_AFTER_SUBCOMMAND: Final = {
    "xgroup|create": ("results", "0"),
    "xgroup|createconsumer": ("group", "name"),
    "xgroup|delconsumer": ("group", "name"),
    "xgroup|destroy": ("group",),
    "xinfo|groups": (),
    "xinfo|consumers": ("group",),
    "script|load": (),
    "script|exists": (),
}
