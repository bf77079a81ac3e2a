"""Prometheus is shown every lane that exists, by whichever worker it asks."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest
import redis
from prometheus_client import CollectorRegistry
from support.route_parts import SHARING

from worker.operations.route_view import Place, places_of
from worker.runtime.fleet_metrics import FleetCollector


def samples(
    redis_url: str, targets: Mapping[str, timedelta] | None = None, places: Mapping[str, Place] | None = None
) -> dict[tuple[str, ...], float]:
    """Metric and label values -> value, as a worker of `interactive` shows them."""
    registry = CollectorRegistry()
    client = lambda: redis.Redis.from_url(redis_url)  # noqa: E731  # pyright: ignore[reportUnknownMemberType, reportUnknownLambdaType]  # untyped kwargs
    registry.register(FleetCollector(client, ("interactive",), targets=targets or {}, places=places or {}))
    found = (sample for family in registry.collect() for sample in family.samples)
    return {(each.name.removeprefix("responses_worker_"), *each.labels.values()): each.value for each in found}


def test_a_lane_of_a_group_at_zero_pods_is_shown(valkey: redis.Redis, redis_url: str) -> None:
    """Whether it was served once, or only a producer knows it."""
    valkey.zadd("responses:lanes", {"batch": 1})
    for _ in range(3):
        valkey.lpush("responses.batch", "x")
    valkey.lpush("responses.tpyo", "x")
    targets = {"interactive": timedelta(seconds=60), "*": timedelta(hours=1)}
    shown = samples(redis_url, targets=targets)

    assert shown["lane_messages", "batch", "ready"] == 3
    assert shown["lane_messages", "tpyo", "ready"] == 1
    assert [shown["lane_workers", lane] for lane in ("interactive", "batch")] == [0, 0]
    assert [shown["lane_target_seconds", lane] for lane in ("interactive", "batch")] == [60, 3600]
    assert shown["stray_messages",] == 4


def test_a_pause_is_shown_until_it_ends(valkey: redis.Redis, redis_url: str) -> None:
    quota = "responses:quota:default"
    assert samples(redis_url)["fleet_paused",] == 0
    valkey.hset(quota, "paused", 1)
    assert samples(redis_url)["fleet_paused",] == 1
    valkey.hset(quota, "paused_until", 2)
    assert samples(redis_url)["fleet_paused",] == 0


def test_every_account_has_its_calls_in_flight(valkey: redis.Redis, redis_url: str) -> None:
    """The fleet is paused once none of its routes may be called."""
    for scope, calls in (("account:shared", 3), ("route:one", 3), ("account:other", 2)):
        valkey.zadd(f"responses:permits:default:{scope}", {str(n): 9e15 for n in range(calls)})
    valkey.hset("responses:quota:default:account:shared", "paused", 1)
    shown = samples(redis_url, places=places_of(SHARING))

    assert {name[1:]: value for name, value in shown.items() if name[0] == "fleet_calls_in_flight"} == {
        ("shared",): 3, ("own",): 2,
    }  # fmt: skip
    assert shown["fleet_paused",] == 0
    valkey.hset("responses:quota:default:account:other", "paused", 1)
    assert samples(redis_url, places=places_of(SHARING))["fleet_paused",] == 1


@pytest.mark.parametrize("trimmed", [0, 2])
@pytest.mark.parametrize("deleted", [None, 5])
@pytest.mark.parametrize("position", ["0", "$", "0-1", 1, 3, 6, "9999999999999-0"])
def test_the_unread_results_of_a_group_are_right_or_not_told(
    valkey: Any, redis_url: str, position: str | int, deleted: int | None, trimmed: int
) -> None:
    """Wherever it was made, and whatever was removed: Redis cannot always tell, and 0 would say that all is read."""
    stream = "responses:results"
    ids = [valkey.xadd(stream, {"result": "{}"}) for _ in range(8)]
    if deleted is not None:
        valkey.xdel(stream, ids[deleted])
    valkey.xgroup_create(stream, "shop", id=ids[position] if isinstance(position, int) else position)
    valkey.xtrim(stream, minid=ids[trimmed].decode())
    for _ in range(2):
        valkey.xadd(stream, {"result": "{}"})
    for _ in range(3):
        (group,) = valkey.xinfo_groups(stream)
        unread = len(valkey.xrange(stream, min=b"(" + group["last-delivered-id"])) + group["pending"]
        assert samples(redis_url).get(("results_unread", stream, "shop"), unread) == unread
        valkey.xreadgroup("shop", "reader", {stream: ">"}, count=1)
