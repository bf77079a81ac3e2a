"""The pods that groups need, and the keys in which an autoscaler finds them."""

import json
from pathlib import Path
from typing import Any

import pytest
import redis
from support.heard import Heard

from worker.config.settings import WrongSettingsError, load
from worker.operations.scaling import Group, LaneWork, Plan, Scaler, check_scaling_file, pods, pods_key
from worker.storage.connection import RedisTarget
from worker.storage.scripts import ScriptRunner

BOTH = Plan(
    useful=250,
    groups={
        "interactive": Group(lanes={"interactive": 4}, concurrency=50, most=5),
        "batch": Group(lanes={"batch": 1, "reports": 1}, concurrency=50, most=5),
    },
)
BUSY = LaneWork(90_000, 0, 0)


@pytest.mark.parametrize(
    ("lanes", "expected"),
    [
        ({}, (0, 0)),
        ({"reports": LaneWork(1, 0, 0)}, (0, 1)),
        ({"interactive": LaneWork(120, 0, 0)}, (3, 0)),
        ({"interactive": LaneWork(0, 180, 0)}, (4, 0)),
        ({"interactive": BUSY}, (5, 0)),
        ({"batch": BUSY, "interactive": LaneWork(0, 100, 0)}, (2, 3)),
        ({"batch": BUSY, "interactive": BUSY}, (4, 2)),
        ({"batch": LaneWork(0, 0, 5_000)}, (0, 1)),
        ({"batch": LaneWork(60, 0, 5_000)}, (0, 2)),
    ],
)
def test_groups_share_what_the_budget_can_use(lanes: dict[str, LaneWork], expected: tuple[int, int]) -> None:
    assert tuple(pods(BOTH, lanes).values()) == expected


def test_without_a_budget_only_the_most_pods_bound() -> None:
    unknown = BOTH.model_copy(update={"useful": 0})
    assert pods(unknown, {"interactive": BUSY, "batch": LaneWork(70, 0, 0)}) == {"interactive": 5, "batch": 2}


@pytest.fixture
def plan_file(tmp_path: Path) -> Path:
    file = tmp_path / "scaling.json"
    file.write_text(BOTH.model_dump_json(), encoding="utf-8")
    return file


def scaler(redis_url: str, file: Path) -> Scaler:
    return Scaler(ScriptRunner(RedisTarget.parse(redis_url).async_client()), "blue", file, Heard())


async def test_a_key_is_as_long_as_its_group_needs_pods(valkey: redis.Redis, redis_url: str, plan_file: Path) -> None:
    """Longer and shorter, and gone when there is nothing to do; what is no lane counts as nothing."""
    server: Any = valkey
    server.rpush("responses.batch", *range(110))
    server.rpush("responses.batch\x06\x169", *range(10))
    server.hset("responses:inflight:interactive", mapping={"a": "1"})
    server.set("responses:delayed:reports", "of another kind")
    one = scaler(redis_url, plan_file)

    found = await one.step()

    assert found == {"interactive": 1, "batch": 3}
    assert {name: server.llen(pods_key("blue", name)) for name in BOTH.groups} == found
    server.delete("responses.batch", "responses:inflight:interactive")
    assert await one.step() == {"interactive": 0, "batch": 1}
    assert server.llen(pods_key("blue", "batch")) == 1
    assert not server.exists(pods_key("blue", "interactive"))
    assert 0 < server.ttl(pods_key("blue", "batch")) <= 7 * 86_400
    await one.runner.aclose()


async def test_one_worker_counts_for_all(valkey: redis.Redis, redis_url: str, plan_file: Path) -> None:
    server: Any = valkey
    first, second = scaler(redis_url, plan_file), scaler(redis_url, plan_file)

    assert await first.step() is not None
    assert await second.step() is None
    assert await first.step() is not None, "the same question again, as after a lost reply"
    server.delete("responses:scaling-turn:blue")  # as its end of life does
    assert await second.step() is not None
    for one in (first, second):
        await one.runner.aclose()


async def test_the_plan_is_read_anew(redis_url: str, plan_file: Path) -> None:
    """A group that is added restarts nobody; a file that is broken meanwhile changes nothing."""
    one = scaler(redis_url, plan_file)
    await one.step()
    plan_file.write_text("{", encoding="utf-8")  # noqa: ASYNC240  # a tiny file, and nothing else runs here
    assert await one.step() == {"interactive": 0, "batch": 0}
    more = BOTH.model_dump() | {"groups": {"third": {"lanes": {"third": 1}, "concurrency": 1, "most": 1}}}
    plan_file.write_text(json.dumps(more), encoding="utf-8")  # noqa: ASYNC240  # as above
    assert await one.step() == {"third": 0}
    await one.runner.aclose()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "the file: Invalid JSON"),
        ('{"groups": {"a": {"lanes": {}, "concurrency": 1, "most": 1}}}', "groups.a.lanes"),
        ('{"groups": {"a": {"lanes": {"x": 1}, "concurrency": 0, "most": 1}}}', "groups.a.concurrency"),
    ],
)
def test_a_wrong_plan_stops_the_start(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "scaling.json"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(WrongSettingsError, match=f"WORKER_SCALING_FILE: {said}"):
        check_scaling_file(load(scaling_file=file))


def test_a_missing_plan_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(WrongSettingsError, match="WORKER_SCALING_FILE: names a file that cannot be read"):
        check_scaling_file(load(scaling_file=tmp_path / "none.json"))
