"""Messages under keys that nobody serves are seen by `status`, `doctor` and a metric, and what was held comes back."""

from typing import Any

import pytest
import redis
from support.command_line import called
from support.doctor_findings import one
from support.polling import wait_until
from support.probe_client import Probe
from support.producer import Producer
from support.worker_process import Fleet

from worker.operations.findings import Finding, Severity
from worker.operations.redis_health import examine_redis, judge_backlog
from worker.operations.stray_messages import StraySearch
from worker.storage.connection import RedisTarget

STRAYS = {
    "responses.tpyo": 1,
    "responses.interactive\x06\x164": 1,
    "responses.interactive:3": 1,
    "team-a.responses.batch": 1,
    "responses.old": 2,
    "responses:inflight:old": 1,
    "responses:parked:old": 1,
}


def redis_findings(url: str) -> list[Finding]:
    return list(examine_redis(RedisTarget.parse(url), ["interactive", "batch"]))


def stray(client: Any) -> None:
    """Of every kind, beside what is served and what is none of ours."""
    for name, size in STRAYS.items():
        for number in range(size):
            client.hset(name, number, "x") if ":inflight:" in name or ":parked:" in name else client.lpush(name, "x")
    client.lpush("responses.interactive", "x")
    client.lpush("responses.batch\x06\x169", "x")
    client.hset("responses:parked:batch", "t", "x")
    client.sadd("_kombu.binding.responses.batch", "x")
    client.lpush("another-team", "x")
    client.set("responses.of.another.type", "x")


def test_every_kind_is_found_and_nothing_else(valkey: redis.Redis) -> None:
    stray(valkey)

    assert StraySearch(["interactive", "batch"]).look(valkey, 100) == STRAYS


def test_a_search_is_bounded_and_goes_on(valkey: Any) -> None:
    """Until it is through all keys; then the next one begins, and what it does not find is gone."""
    for start in range(0, 30_000, 1_000):
        valkey.mset({f"other:{number}": 1 for number in range(start, start + 1_000)})
    valkey.lpush("responses.tpyo", "x")
    search = StraySearch(["interactive"])

    search.look(valkey, 5)
    assert not search.complete
    looks = [search.look(valkey, 5) for _ in range(10)]
    assert search.complete
    assert looks[-1] == {"responses.tpyo": 1}

    valkey.delete("responses.tpyo")
    assert [search.look(valkey, 5) for _ in range(20)][-1] == {}


def test_operators_are_told(valkey: redis.Redis, redis_url: str) -> None:
    """Names that a producer chose are shown without their control characters."""
    stray(valkey)
    valkey.lpush("responses.\x1b[31mred", "x")

    shown = called("status", WORKER_REDIS_URL=redis_url).out
    finding = one(redis_findings(redis_url), "redis.lanes")

    assert "no worker serves 'team-a.responses.batch': 1 messages" in shown
    assert "lane tpyo stands still: no worker" in shown
    assert "\x1b[31m" not in shown + finding.seen
    assert finding.level is Severity.WARN


def test_nothing_is_said_where_all_is_served(valkey: redis.Redis, redis_url: str) -> None:
    valkey.lpush("responses.interactive", "x")

    assert "no worker serves" not in called("status", WORKER_REDIS_URL=redis_url).out
    assert one(redis_findings(redis_url), "redis.lanes").level is Severity.OK
    assert one(redis_findings(redis_url), "redis.backlog").level is Severity.OK


@pytest.mark.parametrize(("size", "level"), [(2**20, Severity.OK), (2**30, Severity.WARN)])
def test_lanes_are_judged_by_their_bytes(size: int, level: Severity) -> None:
    assert judge_backlog({"interactive": size, "batch": 0}).level is level


def test_what_workers_held_of_a_dropped_lane_is_handed_back_and_counted(
    fleet: Fleet, producer: Producer, redis_url: str
) -> None:
    """By workers of other lanes. It waits there until somebody serves it again."""
    called("pause", WORKER_REDIS_URL=redis_url)
    old = fleet.start(lanes="old=1")
    task_id = producer.ask(lane="old")
    wait_until(lambda: producer.redis.hlen("responses:inflight:old") == 1, what="the request is held")
    other = fleet.start(lanes="interactive=1")
    old.kill()

    wait_until(lambda: producer.redis.llen("responses.old") == 1, within_s=40, what="it is handed back")
    producer.redis.zrem("responses:lanes", "old")  # as a minute later
    wait_until(lambda: Probe.of(other).metric("stray_messages") == 1, within_s=20, what="it is counted")

    called("resume", WORKER_REDIS_URL=redis_url)
    fleet.start(lanes="old=1")
    assert producer.result(task_id)["outcome"] == "completed"
