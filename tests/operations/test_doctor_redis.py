"""The doctor's view of Redis, on servers that are wrong in one way each."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import pytest
import redis
from support.doctor_findings import levels, one
from support.redis_users import PASSWORD, denials, url_of, users_of

from worker.devtools.devstack import embedded_valkey
from worker.operations.acl import CONSUMER, OPERATOR, PRODUCER, WORKER, Role
from worker.operations.findings import Finding, Severity
from worker.operations.redis_health import examine_redis, judge_clock, judge_persistence, judge_topology, judge_version
from worker.storage.connection import RedisTarget


def redis_findings(url: str) -> list[Finding]:
    return list(examine_redis(RedisTarget.parse(url), ["interactive", "batch"]))


@contextmanager
def administrator(url: str) -> Generator[Any]:
    with redis.Redis.from_url(url) as client:  # pyright: ignore[reportUnknownMemberType]  # untyped kwargs
        yield client


def test_a_durable_redis_with_a_worker_of_its_own_is_all_well() -> None:
    """Nothing to change where everything is as the docs say, seen by the user that workers are given."""
    with embedded_valkey(appendonly=True) as valkey, administrator(valkey.url) as admin, users_of(admin, WORKER):
        findings = redis_findings(url_of(WORKER, valkey.url))
        refused = denials(admin, WORKER)

    assert one(findings, "redis.permissions").seen.startswith("user worker may do what a worker does")
    assert levels(findings) == {
        "redis": Severity.OK,
        "redis.version": Severity.OK,
        "redis.topology": Severity.OK,
        "redis.eviction": Severity.OK,
        "redis.persistence": Severity.WARN,  # this user may not ask how often it syncs
        "redis.clock": Severity.OK,
        "redis.permissions": Severity.OK,
        "redis.lanes": Severity.OK,
        "redis.backlog": Severity.OK,
    }
    assert refused == [("command", "config|get")]


def test_a_redis_as_it_comes_is_warned_of(redis_url: str) -> None:
    """Reachable and new enough; but it forgets, and everybody may do everything."""
    findings = redis_findings(redis_url)

    assert levels(findings)["redis.persistence"] is Severity.WARN
    assert one(findings, "redis.permissions").seen == (
        "user default may also FLUSHALL, CONFIG SET, ACL SETUSER, SHUTDOWN"
    )
    assert {finding.check for finding in findings if finding.level is Severity.FAIL} == set()


def test_always_synced_is_as_good_as_it_gets() -> None:
    with embedded_valkey(appendonly=True) as valkey:
        finding = one(redis_findings(valkey.url), "redis.persistence")

    assert (finding.level, finding.seen) == (Severity.OK, "append-only, every write synced")


@pytest.mark.parametrize(
    ("config", "check", "seen"),
    [
        ({"maxmemory": "100mb", "maxmemory-policy": "allkeys-lru"}, "redis.eviction", "allkeys-lru, 100 MiB"),
        ({"cluster-enabled": "yes"}, "redis.topology", "a cluster"),
        ({"replicaof": "127.0.0.1 1"}, "redis.topology", "a replica, which takes no writes"),
    ],
)
def test_a_redis_that_cannot_hold_requests_fails(config: dict[str, str], check: str, seen: str) -> None:
    """Eviction drops requests, a cluster splits scripts, a replica refuses writes."""
    with embedded_valkey(config=config) as valkey:
        finding = one(redis_findings(valkey.url), check)

    assert finding.level is Severity.FAIL
    assert seen in finding.seen
    assert finding.change


def test_eviction_without_a_limit_is_a_warning() -> None:
    """Nothing is evicted before there is a limit; that it will be then is worth a word."""
    with embedded_valkey(config={"maxmemory-policy": "volatile-ttl"}) as valkey:
        assert one(redis_findings(valkey.url), "redis.eviction").level is Severity.WARN


@pytest.mark.parametrize(
    ("info", "level"),
    [
        ({"redis_version": "7.2.4", "valkey_version": "8.0.1"}, Severity.OK),
        ({"redis_version": "7.0.0"}, Severity.OK),
        ({"redis_version": "8.2-rc1"}, Severity.OK),
        ({"redis_version": "6.2.14"}, Severity.FAIL),
    ],
)
def test_versions(info: dict[str, str], level: Severity) -> None:
    assert judge_version(info).level is level


def test_a_sentinel_is_not_the_redis_it_watches() -> None:
    assert "sentinel://" in judge_topology({"redis_mode": "sentinel", "cluster_enabled": 0}).change


@pytest.mark.parametrize(
    ("info", "fsync", "level"),
    [
        ({"aof_enabled": 1}, "always", Severity.OK),
        ({"aof_enabled": 1}, "everysec", Severity.WARN),
        ({"aof_enabled": 1}, "", Severity.WARN),
        ({"aof_enabled": 0}, "always", Severity.WARN),
        ({"aof_enabled": 1, "aof_last_write_status": "err"}, "always", Severity.FAIL),
        ({"aof_enabled": 0, "rdb_last_bgsave_status": "err"}, "", Severity.FAIL),
    ],
)
def test_persistence(info: dict[str, Any], fsync: str, level: Severity) -> None:
    """A failed write to disk stops all writes (MISCONF), so it fails whatever else is set."""
    assert judge_persistence(info, fsync).level is level


@pytest.mark.parametrize(
    ("server_s", "uncertain_s", "level"),
    [
        (1000.5, 0, Severity.OK),
        (1003, 0, Severity.WARN),
        (997, 0, Severity.WARN),
        (1003, 2.5, Severity.OK),
        (1100, 0, Severity.FAIL),
    ],
)
def test_clocks_are_compared_within_what_a_slow_answer_hides(
    server_s: float, uncertain_s: float, level: Severity
) -> None:
    assert judge_clock(server_s, 1000, uncertain_s).level is level


@pytest.mark.parametrize(
    ("role", "missing"), [(PRODUCER, "EVAL"), (CONSUMER, "EVAL"), (OPERATOR, "LREM responses.interactive")]
)
def test_another_roles_user_is_no_worker(valkey: Any, redis_url: str, role: Role, missing: str) -> None:
    """A missing right is named before a script fails half-way; asking leaves no trace but in one's own refusals."""
    with users_of(valkey, role):
        finding = one(redis_findings(url_of(role, redis_url)), "redis.permissions")

    assert finding.level is Severity.FAIL
    assert f"user {role.name} may not: " in finding.seen
    assert missing in finding.seen


def test_one_missing_right_is_found(valkey: Any, redis_url: str) -> None:
    """On a sub-list of one priority, that nobody uses most of the time."""
    with users_of(valkey, WORKER):
        rules = next(grant for grant in WORKER.grants if "rpush" in grant.commands)
        narrow = [part.replace("responses.*", "responses.*[a-z]") for part in rules.rule.split(" ")]
        others = [grant.rule.split(" ") for grant in WORKER.grants if grant is not rules]
        valkey.execute_command("ACL", "SETUSER", "worker", "clearselectors", *narrow)
        for other in others:
            valkey.execute_command("ACL", "SETUSER", "worker", *other)
        finding = one(redis_findings(url_of(WORKER, redis_url)), "redis.permissions")

    assert finding.level is Severity.FAIL
    assert "TYPE responses.interactive:3" in finding.seen
    assert "HSET" not in finding.seen


@pytest.mark.parametrize(
    ("url", "seen"),
    [
        (f"redis://worker:{PASSWORD}@127.0.0.1:1/0", "127.0.0.1:1: "),
        (f"redis://nobody:{PASSWORD}@%s", "refuses the user or the password"),
    ],
)
def test_a_redis_that_lets_nobody_in_fails_alone(redis_url: str, url: str, seen: str) -> None:
    """One finding, because nothing else can be known; the password is not in it."""
    (finding,) = redis_findings(url.replace("%s", redis_url.removeprefix("redis://")))

    assert (finding.check, finding.level) == ("redis", Severity.FAIL)
    assert seen in finding.seen
    assert PASSWORD not in str(finding)
