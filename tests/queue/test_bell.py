"""A push wakes one process, whoever pushed it; without news, without a keeper or without both, it only takes longer."""

from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
import redis
from support.ledger_parts import eventually
from support.redis_users import PASSWORD
from support.taking_process import Process

from worker.queue import bell as bell_module
from worker.queue import keeper as keeper_module
from worker.queue import kept_lanes as kept_lanes_module
from worker.storage.connection import RedisTarget
from worker.storage.scripts import ScriptRunner

LANES = ("interactive", "batch")


@pytest.fixture
async def start(valkey: redis.Redis, redis_url: str) -> AsyncGenerator[Callable[..., Process]]:
    assert valkey.ping()  # pyright: ignore[reportUnknownMemberType]  # untyped kwargs
    async with AsyncExitStack() as stack:

        def start(*served: str, url: str = redis_url) -> Process:
            process = Process(ScriptRunner(RedisTarget.parse(url).async_client()), served or LANES)
            stack.push_async_callback(process.leave)
            return process

        yield start


def scripts(valkey: Any) -> int:
    return valkey.info("commandstats").get("cmdstat_evalsha", {"calls": 0})["calls"]


def blocked(valkey: Any) -> int:
    return valkey.info("clients")["blocked_clients"]


@pytest.fixture
def unpolled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is looked at but what rang."""
    monkeypatch.setattr(bell_module, "SWEEP_S", 3600.0)


@pytest.mark.usefixtures("unpolled")
async def test_one_message_wakes_one_of_many(start: Callable[..., Process], valkey: Any) -> None:
    """However many are idle: a look, a ring, a pop, and the looks that see the lane empty again."""
    processes = [start() for _ in range(20)]
    await eventually(lambda: all(each.idle for each in processes) and blocked(valkey) == 20)
    before = scripts(valkey)

    valkey.lpush("responses.interactive", "m")
    await eventually(lambda: sum(len(each.started) for each in processes) == 1)
    await eventually(lambda: all(each.idle for each in processes) and blocked(valkey) == 20)

    assert scripts(valkey) - before <= 6 + 20  # an attempt of each to become keeper may fall into this time


@pytest.mark.usefixtures("unpolled")
async def test_a_keeper_with_a_free_place_takes_a_message_itself(start: Callable[..., Process], valkey: Any) -> None:
    """Its process pops at once: a look and a ring would only cost time. A look comes first now and then."""
    processes = [start() for _ in range(5)]
    await eventually(lambda: all(each.idle for each in processes) and blocked(valkey) == 5)
    (keeper,) = (each for each in processes if each.kept.lanes)

    for number in range(10):
        valkey.lpush("responses.interactive", f"m{number}")
        await eventually(lambda: sum(len(each.started) for each in processes) == number + 1)  # noqa: B023  # awaited here
        await eventually(lambda: keeper.idle and not keeper.kept.occupied and keeper.kept.quiet_s > 1)

    assert len(keeper.started) >= 7, "a ring wakes each of the five in turn"


@pytest.mark.usefixtures("unpolled")
async def test_a_wait_for_every_lane_goes_on_while_one_wakes_and_dozes(
    start: Callable[..., Process], valkey: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A keeper that takes a message itself hears no ring of it, so its wait for rings need not begin anew."""
    monkeypatch.setattr(kept_lanes_module, "GAP_S", 0.2)  # a slow pop is no reason to ring for others
    process = start()

    def settled() -> bool:
        kept = process.kept
        return process.idle and bool(kept.lanes) and not kept.occupied and kept.quiet_s > 1 and blocked(valkey) == 1

    await eventually(settled)
    valkey.config_resetstat()  # other tests ended waits on this server
    for number in range(5):
        await eventually(settled)
        valkey.lpush("responses.interactive", f"m{number}")
        await eventually(lambda: len(process.started) == number + 1)  # noqa: B023  # awaited here
    await eventually(settled)

    ended = valkey.info("commandstats").get("cmdstat_client|unblock", {"calls": 0})["calls"]
    assert ended <= 1, "a look, and with it a ring, comes first now and then"


@pytest.mark.usefixtures("unpolled")
async def test_a_keeper_without_a_free_place_rings_for_another(start: Callable[..., Process], valkey: Any) -> None:
    processes = [start() for _ in range(5)]
    await eventually(lambda: all(each.idle for each in processes) and blocked(valkey) == 5)
    (keeper,) = (each for each in processes if each.kept.lanes)
    keeper.has_place = False

    valkey.lpush("responses.interactive", "m")

    await eventually(lambda: sum(len(each.started) for each in processes) == 1)


@pytest.mark.usefixtures("unpolled")
@pytest.mark.parametrize("priority", ["", "\x06\x169"])
async def test_every_list_of_a_lane_rings(start: Callable[..., Process], valkey: Any, priority: str) -> None:
    process = start()
    await eventually(lambda: process.idle)

    valkey.lpush(f"responses.batch{priority}", "m")

    await eventually(lambda: process.taken == [b"m"])


@pytest.mark.usefixtures("unpolled")
async def test_a_lane_is_kept_by_a_process_that_does_not_serve_it(start: Callable[..., Process], valkey: Any) -> None:
    keeper, other = start("interactive"), start("reports")
    for each in (keeper, other):
        await each.ledger.serve(each.served)
    await eventually(lambda: other.idle and (keeper.kept.lanes or other.kept.lanes))
    await eventually(lambda: {"interactive", "reports"} <= {*keeper.kept.lanes, *other.kept.lanes})

    valkey.lpush("responses.reports", "m")

    await eventually(lambda: other.taken == [b"m"])


@pytest.mark.usefixtures("unpolled")
async def test_while_messages_are_left_one_process_more_is_woken_each_time(
    start: Callable[..., Process], valkey: Any
) -> None:
    processes = [start() for _ in range(4)]
    await eventually(lambda: all(each.idle for each in processes))
    for each in processes:
        each.fetcher.places = lambda process=each: 10 - len(process.started)

    valkey.lpush("responses.interactive", *(f"m{number}" for number in range(40)))

    await eventually(lambda: [len(each.started) for each in processes] == [10] * 4)


@pytest.mark.usefixtures("unpolled")
async def test_what_is_parked_comes_back_when_it_is_due(start: Callable[..., Process], valkey: Any) -> None:
    """Also where an earlier time replaces the one that was waited for."""
    process = start()
    await eventually(lambda: process.idle and process.kept.lanes)
    seconds, microseconds = valkey.time()
    now = seconds * 1000 + microseconds // 1000

    for token, due in (("late", now + 3_600_000), ("soon", now + 300)):
        valkey.hset("responses:parked:batch", token, f'{{"v":1,"list":"responses.batch"}}\n{token}')
        valkey.zadd("responses:delayed:batch", {token: due})
    await eventually(lambda: process.taken == [b"soon"])

    valkey.zadd("responses:delayed:batch", {"late": 0}, xx=True)  # as a client that cancels it does
    await eventually(lambda: process.taken == [b"soon", b"late"])


@pytest.mark.usefixtures("unpolled")
async def test_lost_connections_lose_no_message(start: Callable[..., Process], valkey: Any) -> None:
    """All connections are cut, again and again."""
    process = start()
    await eventually(lambda: process.idle and process.kept.lanes)

    for number in range(10):
        valkey.client_kill_filter(_type="normal", skipme=True)
        valkey.lpush("responses.interactive", f"m{number}")
        await eventually(lambda number=number: len(process.started) == number + 1)


async def test_where_the_server_tells_nobody_lanes_are_polled(
    start: Callable[..., Process], valkey: Any, redis_url: str
) -> None:
    """As under the rules of a release before this one. Parked messages come back as well."""
    valkey.execute_command("ACL", "SETUSER", "old", "reset", "on", f">{PASSWORD}", "~*", "+@all", "-client|tracking")
    process = start(url=redis_url.replace("://", f"://old:{PASSWORD}@"))
    await eventually(lambda: process.kept.lanes)
    assert not process.lanes.heard

    valkey.lpush("responses.interactive", "m")
    valkey.hset("responses:parked:batch", "t", '{"v":1,"list":"responses.batch"}\nparked')
    valkey.zadd("responses:delayed:batch", {"t": 1})

    await eventually(lambda: sorted(process.taken) == [b"m", b"parked"])
    valkey.execute_command("ACL", "DELUSER", "old")


async def test_a_keeper_that_leaves_is_followed_at_once(
    start: Callable[..., Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper_module, "KEEP_S", 0.05)
    one, two = start(), start()
    await eventually(lambda: one.kept.lanes or two.kept.lanes)
    keeper, other = (one, two) if one.kept.lanes else (two, one)

    keeper.tasks[1].cancel()
    await keeper.keeper.leave()

    await eventually(lambda: other.kept.lanes)
    assert not keeper.kept.lanes


@pytest.mark.usefixtures("unpolled")
async def test_a_cancel_mark_is_told(start: Callable[..., Process], valkey: Any) -> None:
    process = start()
    await eventually(lambda: process.lanes.heard)

    valkey.set("responses:cancel:default:r", 1)

    await eventually(lambda: process.marks == ["responses:cancel:default:r"])


async def test_without_a_keeper_each_lane_is_looked_at_now_and_then(
    start: Callable[..., Process], valkey: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bell_module, "SWEEP_S", 0.2)
    valkey.set("responses:keeper", "a process that has just died")
    process = start("a", "b", "c")
    await eventually(lambda: process.lanes.heard)

    for lane in "abc":
        valkey.lpush(f"responses.{lane}", lane)

    await eventually(lambda: sorted(process.taken) == [b"a", b"b", b"c"])
