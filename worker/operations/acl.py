"""Rights of each role in Redis, as data: least privilege for producers, consumers, workers and operators.

Every command rule is a selector of its own (Redis 7.0,
redis.io/docs/latest/operate/oss_and_stack/management/security/acl), so that a command is allowed on the keys it is for
and on no others: a producer may `SET` a mark that cancels a request and cannot `SET` a lane.
`tests/operations/test_acl.py` runs each role with its rules only.

**Why producers cancel by key and not by `revoke`**: Celery's remote control is one channel for all its commands, and
`shutdown` is one of them. Who may publish there can stop the fleet, so that is an operator's.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from api_contracts.queues import DEAD_STREAM, RESULT_STREAM, lane_lists

CONNECTION: Final = "hello auth ping select client|setname client|setinfo multi exec acl|whoami"
"""Set-up, health checks and transactions of redis-py and kombu; they reach no key."""


_FORMS: Final = {
    "{key}": "memory|usage type exists pexpiretime del get llen rpop smembers hgetall hkeys hlen zcard xlen "
    "xinfo|groups",
    "{key} 1": "set pexpire pexpireat lindex lpush rpush brpop blpop hget hmget hexists hdel sadd srem sscan zscore "
    "zmscore zrem hstrlen",
    "{key} 1 1": "lrange lrem lset ltrim hset hincrby zadd zincrby zcount zrange zrangebyscore zrevrangebyscore "
    "zremrangebyscore",
    "{key} - +": "xrange xrevrange",
    "{key} 1-1": "xdel",
    "{key} group": "xgroup|destroy xinfo|consumers xpending",
    "{key} group 1-1": "xack xgroup|create xgroup|createconsumer xgroup|delconsumer",
    "{key} group name 1 1-1": "xclaim xautoclaim",
    "{key} MAXLEN 1": "xtrim",
    "{key} * field value": "xadd",
    "STREAMS {key} 0": "xread",
    "GROUP group name STREAMS {key} >": "xreadgroup",
    "text 1 {key}": "eval evalsha",
    "text": "script|load script|exists",
    "on": "client|tracking",
    "1": "client|unblock",
    "": "time info client|id",
    "0": "scan",
    "{channel}": "psubscribe punsubscribe",
    "{channel} text": "publish",
}
"""Each command written in full. A check of less could not find the keys, or worse: Valkey 9.1.2 dies of
`redis.acl_check_cmd("eval")`, which looks for the number of keys where there is none."""

_FORM_OF: Final = {command: form for form, commands in _FORMS.items() for command in commands.split()}

_LANES: Final = "responses.*"


@dataclass(frozen=True, slots=True)
class CommandRule:
    """Commands, and the key patterns they are for: `%R~` reads, `%W~` writes, `~` both; no patterns, no keys."""

    purpose: str
    commands: str
    keys: str = ""

    @property
    def rule(self) -> str:
        """A selector, or plain rules where there are no keys."""
        allowed = _allowed(self.commands)
        return f"({allowed} {self.keys})" if self.keys else allowed

    def calls(self, lanes: Iterable[str], channels: Iterable[str]) -> Iterator[tuple[str, ...]]:
        keys = [key for pattern in self.keys.split() for key in _examples(pattern, lanes)]
        for command in self.commands.split():
            for key in keys or [""]:
                yield from _written(command, key, channels)


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    name: str
    who: str
    grants: tuple[CommandRule, ...]
    channels: tuple[str, ...] = ()

    def setuser(self, password: str, *, db: int = 0) -> list[str]:
        """`ACL SETUSER` commands that make this user from nothing, in order: one, and one for each grant."""
        channels = [f"&{channel}" for channel in self._channels(db)]
        base = " ".join(["reset", "on", f">{password}", _allowed(CONNECTION), *channels])
        return [f"ACL SETUSER {self.name} {rules}" for rules in (base, *(grant.rule for grant in self.grants))]

    def calls(self, lanes: Iterable[str], *, db: int = 0) -> Iterator[tuple[str, ...]]:
        """Calls that show everything this role must be allowed: to be checked, never to be made."""
        for grant in self.grants:
            yield from grant.calls(lanes, self._channels(db))

    def _channels(self, db: int) -> list[str]:
        """Named in full: `PSUBSCRIBE` is allowed for a pattern that was granted literally, and for no other."""
        return [channel.format(db=db) for channel in self.channels]


def _allowed(commands: str) -> str:
    return " ".join(f"+{command}" for command in commands.split())


def _written(command: str, key: str, channels: Iterable[str]) -> Iterator[tuple[str, ...]]:
    form = _FORM_OF[command] if key else _FORM_OF[command].replace("1 {key}", "0")
    for channel in channels if "{channel}" in form else [""]:
        yield (*command.split("|"), *(part.format(key=key, channel=channel) for part in form.split()))


def _examples(pattern: str, lanes: Iterable[str]) -> list[str]:
    """Keys that match: the pattern matches itself; lanes are named, since a user may be limited to some."""
    key = pattern.partition("~")[2]
    if key == _LANES:
        return [name for lane in lanes for name in lane_lists(lane)]
    return [key]


PRODUCER: Final = Role(
    name="producer",
    who="a service that enqueues with plain Celery",
    grants=(
        CommandRule("enqueue", "lpush llen exists", "%W~responses.*"),
        CommandRule("see how much a lane holds", "memory|usage", "%R~responses.*"),
        CommandRule(
            "declare lanes, as Celery does before it sends",
            "sadd",
            "%W~_kombu.binding.responses.* %W~_kombu.binding_permanent.responses.*",
        ),
        CommandRule("cancel a request", "set", "%W~responses:cancel:*"),
    ),
)

CONSUMER: Final = Role(
    name="consumer",
    who="a service that reads results",
    grants=(
        CommandRule(
            "read and acknowledge results, as a group or without",
            "xreadgroup xack xautoclaim xclaim xpending xread xrange xlen xinfo|groups xinfo|consumers "
            "xgroup|create xgroup|createconsumer xgroup|delconsumer",
            f"~{RESULT_STREAM} ~{RESULT_STREAM}:*",
        ),
        CommandRule("set aside what cannot be read", "xadd", "%W~responses:unreadable"),
        CommandRule("wait for one id", "hget hmget", "%R~responses:request:*"),
        CommandRule("be told when it changes", "client|tracking"),
        CommandRule("follow the tokens of a streamed request", "xread xrange", "%R~responses:deltas:*"),
    ),
)

CLIENT: Final = Role(
    name="client",
    who="a service with `api_contracts.client`: both of these",
    grants=(
        *PRODUCER.grants,
        *CONSUMER.grants,
        CommandRule("wake what it cancels", "zadd", "%W~responses:delayed:*"),
        CommandRule("see whether a lane is served", "zscore", "%R~responses:lanes"),
    ),
)

_SCRIPTS: Final = (
    CommandRule("load scripts, and check permissions", "eval evalsha script|load"),
    CommandRule("run them on our keys; their commands are checked too", "eval evalsha", "~responses.* ~responses:*"),
)
_STATE: Final = CommandRule("see the server's time and state", "time info")
_STRAYS: Final = (
    CommandRule("find keys that no worker serves", "scan"),
    CommandRule("count what they hold", "llen memory|usage", "%R~*responses.*"),
    CommandRule("count what workers held of them", "hlen zrange", "%R~responses:*"),
)
_MAILBOXES: Final = CommandRule(
    "declare and find mailboxes of Celery's remote control",
    "evalsha script|load script|exists sadd srem smembers exists del zadd zrem zrangebyscore",
    "~_kombu.binding*",
)

WORKER: Final = Role(
    name="worker",
    who="`responses-worker run`, `doctor`",
    channels=("/{db}.celery.pidbox", "/{db}.celeryev/worker.*", "/{db}.celeryev/task.*"),
    grants=(
        *_SCRIPTS,
        _STATE,
        *_STRAYS,
        CommandRule(
            "take from lanes and give back", "type exists llen lindex lrange lrem lset rpop rpush", "~responses.*"
        ),
        CommandRule(
            "keep leases, requests, results and budgets",
            "type exists del pexpire pexpireat pexpiretime set hget hmget hgetall hkeys hexists hset hdel hincrby "
            "zadd zincrby zrem zcard zscore zrangebyscore zremrangebyscore sadd srem sscan "
            "xadd xtrim xlen xpending xinfo|groups",
            "~responses:*",
        ),
        CommandRule("drop kept requests that failed", "xrange xdel hstrlen", "~responses:failed*"),
        CommandRule("keep the pods that groups need", "get llen ltrim rpush", "~responses:scaling*"),
        CommandRule("ring for idle processes, and hear that", "lpush rpop blpop", "~responses:bell:*"),
        CommandRule("look at lanes and read the first one parked", "llen zrange get", "%R~responses.* %R~responses:*"),
        CommandRule("be told of changes, and stop waiting for them", "client|tracking client|id client|unblock"),
        _MAILBOXES,
        CommandRule("hear remote control", "psubscribe punsubscribe publish"),
        CommandRule("read its mailbox, and reply", "llen lpush brpop del", "~*.celery.pidbox* ~celeryev.*"),
        CommandRule(
            "look for Celery's lost messages, of which there are none",
            "set get del evalsha zrange zrevrangebyscore",
            "~unacked_mutex ~unacked_index",
        ),
    ),
)

OPERATOR: Final = Role(
    name="operator",
    who="`status`, `dead`, `redrive`, `pause`, `resume`; `celery inspect` and `control`",
    channels=("/{db}.celery.pidbox",),
    grants=(
        *_SCRIPTS,
        _STATE,
        *_STRAYS,
        CommandRule("count what waits, since when, and find a request", "type llen lindex lrange", "%R~responses.*"),
        CommandRule(
            "count the rest, without its content",
            "type exists hlen zrange zcard zcount zscore xlen xinfo|groups smembers sscan",
            "%R~responses:*",
        ),
        CommandRule(
            "see the workers, and what they did in the last hour",
            "hgetall zmscore",
            "%R~responses:loads:* %R~responses:history:* %R~responses:moved",
        ),
        CommandRule("read the accounts", "hgetall", "%R~responses:usage:*"),
        CommandRule("pause, resume, change limits", "hmget hgetall hset hdel", "~responses:quota:*"),
        CommandRule("record what is done, and read the record", "xadd xrevrange", "~responses:audit"),
        CommandRule("read and drop dead letters", "xrange xrevrange xdel", f"~{DEAD_STREAM}"),
        CommandRule("put them back on their lanes", "lpush", "%W~responses.*"),
        CommandRule(
            "find requests that failed and take them out",
            "type xrange xrevrange xdel hget hstrlen hdel hincrby",
            "~responses:failed*",
        ),
        CommandRule("let their ids run anew", "hmget hset pexpireat", "~responses:request:*"),
        CommandRule("drop what they streamed", "del", "%W~responses:request:* %W~responses:deltas:*"),  # in one command
        CommandRule("cancel a request", "set", "%W~responses:cancel:*"),
        CommandRule("wake it where it is parked", "zadd", "~responses:delayed:*"),
        CommandRule("find it by its Celery task", "hget", "%R~responses:task:*"),
        CommandRule("remove abandoned consumer groups", "xgroup|destroy", f"~{RESULT_STREAM} ~{RESULT_STREAM}:*"),
        _MAILBOXES,
        CommandRule("speak to all workers", "publish"),
        CommandRule("hear their replies", "llen lpush brpop del", "~*.reply.celery.pidbox*"),
    ),
)

ROLES: Final = (PRODUCER, CONSUMER, CLIENT, WORKER, OPERATOR)
