"""Whether this Redis can hold requests: reachable, new enough, alone, keeping what it is given, and letting us work.

What a user may do is asked with `redis.acl_check_cmd` inside a read-only script (Redis 7.0): unlike `ACL DRYRUN` it
needs no right over other users, and unlike trying it changes nothing and leaves no trace in the ACL log.
"""

import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Final

from redis.exceptions import AuthenticationError, NoPermissionError, RedisError, ResponseError

from api_contracts.client import BACKLOG_BYTES
from api_contracts.queues import lane_lists
from worker.operations import acl
from worker.operations.findings import Finding, fail, ok, warn
from worker.operations.overview import STRAY_CALLS
from worker.operations.stray_messages import StraySearch
from worker.storage.connection import RedisTarget

OLDEST: Final = (7, 0)
"""Scripts declare their flags (`#!lua`), and ACLs have selectors, from here on."""

SKEW_WARN_S: Final = 1.0
SKEW_FAIL_S: Final = 30.0
"""Callers name deadlines by their clocks, and Redis decides by its own."""

_MAY: Final = """#!lua flags=no-writes,allow-oom
local refused = {}
for i = 1, #ARGV do
  local known, may = pcall(redis.acl_check_cmd, unpack(cjson.decode(ARGV[i])))
  if not (known and may) then refused[#refused + 1] = i - 1 end
end
return refused"""

_TOO_MUCH: Final = (("flushall",), ("config", "set", "dir", "/"), ("acl", "setuser", "any"), ("shutdown",))
"""Rights that no role needs; each alone can lose everything."""


def examine_redis(target: RedisTarget, lanes: Iterable[str]) -> Iterator[Finding]:
    """Every finding about Redis; only the first where it does not answer."""
    where = target.path or ", ".join(f"{host}:{port}" for host, port in target.hosts)
    client: Any = target.client()
    with client:
        try:
            started = time.perf_counter()
            client.ping()
            yield ok("redis", f"{where} answers in {(time.perf_counter() - started) * 1000:.1f} ms")
            yield from _look(client, lanes, target.db)
        except AuthenticationError:
            yield fail("redis", f"{where} refuses the user or the password", "correct them in WORKER_REDIS_URL")
        except (RedisError, OSError) as error:
            yield fail("redis", f"{where}: {error}", "correct WORKER_REDIS_URL, or start Redis there")


def _look(client: Any, lanes: Iterable[str], db: int) -> Iterator[Finding]:
    try:
        info = client.info()
    except NoPermissionError:
        yield warn(
            "redis.info", "this user may not ask for the server's state", "grant +info: see docs/reference/acl.md"
        )
    else:
        yield judge_version(info)
        yield judge_topology(info)
        yield judge_memory(info)
        yield judge_persistence(info, _fsync(client))
    with suppress(NoPermissionError):  # the finding on permissions says so
        yield judge_clock(*_clocks(client))
    lanes = list(lanes)
    yield _permissions(client, lanes, db)
    with suppress(NoPermissionError):  # as above
        yield judge_strays(StraySearch(lanes).look(client, STRAY_CALLS))
        yield judge_backlog({lane: _bytes(client, lane) for lane in lanes})


def judge_version(info: Mapping[str, Any]) -> Finding:
    if version := info.get("valkey_version"):
        return ok("redis.version", f"Valkey {version}")
    version = str(info["redis_version"])
    if tuple(int(number) for number in re.findall(r"\d+", version)[:2]) >= OLDEST:
        return ok("redis.version", f"Redis {version}")
    return fail("redis.version", f"Redis {version}", "use Redis 7.0 or newer, or Valkey")


def judge_topology(info: Mapping[str, Any]) -> Finding:
    """One primary that takes writes, no cluster: our scripts reach many keys at once."""
    if int(info.get("cluster_enabled", 0)):
        return fail("redis.topology", "a cluster", "use one node, or primary and replicas under Sentinel")
    if "sentinel" in (info.get("redis_mode"), info.get("server_mode")):
        return fail("redis.topology", "a Sentinel", "use sentinel://HOST:PORT/0?master_name=NAME")
    if info.get("role", "master") != "master":
        return fail("redis.topology", "a replica, which takes no writes", "connect to its primary")
    return ok("redis.topology", f"one primary with {int(info.get('connected_slaves', 0))} replicas")


def judge_memory(info: Mapping[str, Any]) -> Finding:
    """Eviction would take requests and their answers away silently; full memory is survived and said aloud."""
    policy, limit = str(info.get("maxmemory_policy", "unknown")), int(info.get("maxmemory", 0))
    seen = f"maxmemory-policy {policy}, {f'{limit / 2**20:.0f} MiB' if limit else 'no limit'}"
    if policy == "noeviction":
        return ok("redis.eviction", seen)
    judge = fail if limit else warn
    return judge("redis.eviction", seen, "CONFIG SET maxmemory-policy noeviction, and the same in its configuration")


def judge_persistence(info: Mapping[str, Any], fsync: str) -> Finding:
    """Writes that a death of Redis loses; `fsync` is empty where it cannot be known."""
    check = "redis.persistence"
    broken = [name for name in ("aof_last_write_status", "rdb_last_bgsave_status") if info.get(name, "ok") != "ok"]
    if broken:
        return fail(check, f"{', '.join(broken)}: the last write to disk failed", "free its disk, and read its log")
    if not int(info.get("aof_enabled", 0)):
        return warn(check, "no append-only file: its death loses what came since the last snapshot", _DURABLE)
    if not fsync:
        return warn(check, "append-only; this user may not see appendfsync", "look once as an administrator, who may")
    if fsync == "always":
        return ok(check, "append-only, every write synced")
    return warn(check, f"append-only, appendfsync {fsync}: the machine's death loses the last moments", _DURABLE)


_DURABLE: Final = "set appendonly yes and appendfsync always, if no request may be lost"


def judge_clock(server_s: float, here_s: float, uncertain_s: float) -> Finding:
    """Compares two clocks, read `uncertain_s` apart at most."""
    ahead_s = server_s - here_s
    skew_s = max(0.0, abs(ahead_s) - uncertain_s)
    seen = f"Redis is {abs(ahead_s):.1f} s {'ahead of' if ahead_s > 0 else 'behind'} this machine"
    if skew_s <= SKEW_WARN_S:
        return ok("redis.clock", f"within {max(0.1, abs(ahead_s)):.1f} s of this machine's")
    judge = fail if skew_s > SKEW_FAIL_S else warn
    return judge("redis.clock", seen, "synchronise both clocks (NTP): deadlines and eta are off by as much")


def judge_strays(strays: Mapping[str, int]) -> Finding:
    """Messages that will never be taken."""
    check = "redis.lanes"
    if not strays:
        return ok(check, "no list and no hash of a lane that nobody serves")
    some = ", ".join(f"{ascii(name)[:100]} ({size})" for name, size in list(strays.items())[:5])
    more = f" and {len(strays) - 5} more" if len(strays) > 5 else ""  # noqa: PLR2004  # as many as are named
    return warn(
        check,
        f"no worker serves {some}{more}",
        "add the lane to WORKER_LANES, or correct the producer's queue, priority_steps, sep or global_keyprefix",
    )


def judge_backlog(sizes: Mapping[str, int]) -> Finding:
    """Lanes that hold half of what clients refuse to exceed, or more."""
    large = [f"{lane} {size / 2**20:.0f} MiB" for lane, size in sizes.items() if size >= BACKLOG_BYTES / 2]
    if not large:
        return ok("redis.backlog", f"{sum(sizes.values()) / 2**20:.0f} MiB wait in the lanes")
    limit = f"clients refuse to enqueue beyond {BACKLOG_BYTES / 2**20:.0f} MiB a lane"
    return warn("redis.backlog", f"{', '.join(large)}; {limit}", "run more workers, or enqueue less")


def judge_permissions(user: str, refused: list[str], too_much: list[str]) -> Finding:
    check = "redis.permissions"
    if refused:
        some = ", ".join(refused[:5]) + (f" and {len(refused) - 5} more" if refused[5:] else "")
        return fail(check, f"user {user} may not: {some}", "grant the role `worker`: see docs/reference/acl.md")
    if too_much:
        return warn(
            check,
            f"user {user} may also {', '.join(too_much)}",
            "give workers a user of the role `worker`: see docs/reference/acl.md",
        )
    return ok(check, f"user {user} may do what a worker does, and nothing that loses everything")


def _permissions(client: Any, lanes: Iterable[str], db: int) -> Finding:
    try:
        user = client.acl_whoami()
        user = user.decode() if isinstance(user, bytes) else str(user)
    except ResponseError:  # no permission, or a service that hides ACLs
        user = "of this URL"
    try:
        refused = _refused(client, list(dict.fromkeys(acl.WORKER.calls(lanes, db=db))))
        spared = _refused(client, list(_TOO_MUCH))
    except NoPermissionError:
        return judge_permissions(user, ["EVAL, without which the rest cannot be asked"], [])
    too_much = [" ".join(call[:2]).upper() for call in _TOO_MUCH if call not in spared]
    first_of_each = {call[0]: _named(call) for call in reversed(refused)}
    return judge_permissions(user, list(reversed(first_of_each.values())), too_much)


def _refused(client: Any, calls: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """The calls among these that this user may not make."""
    return [calls[index] for index in client.eval(_MAY, 0, *(json.dumps(call) for call in calls))]


def _named(call: tuple[str, ...]) -> str:
    return " ".join([call[0].upper(), *call[1:2]]).replace("\x06\x16", ":")


def _fsync(client: Any) -> str:
    try:
        return str(client.config_get("appendfsync").get("appendfsync", ""))
    except ResponseError:  # no permission, or a service without CONFIG
        return ""


def _bytes(client: Any, lane: str) -> int:
    """Memory of a lane, as Redis estimates it from a few messages."""
    return sum(client.memory_usage(name, samples=5) or 0 for name in lane_lists(lane))


def _clocks(client: Any) -> tuple[float, float, float]:
    before = time.time()
    seconds, micros = client.time()
    after = time.time()
    return seconds + micros / 1e6, (before + after) / 2, (after - before) / 2
