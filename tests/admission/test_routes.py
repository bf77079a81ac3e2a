"""Several routes: each call goes where there is room, and what a call says is believed of whom it is about."""

from collections import Counter
from collections.abc import AsyncGenerator
from typing import Any

import pytest
import redis
from support.admission_parts import LEASE_MS, PROBE_MS
from support.route_parts import MODEL, Routes, open_routes, table

from worker.admission import permits
from worker.admission.grants import Limits
from worker.admission.route_table import AccountSpec, RouteSpec, RouteTable

THREE = table(
    RouteSpec(name="big", account="big"),
    RouteSpec(name="middle", account="middle"),
    RouteSpec(name="small", account="small"),
    big=AccountSpec(name="big", limits=Limits(600)),
    middle=AccountSpec(name="middle", limits=Limits(300)),
    small=AccountSpec(name="small", limits=Limits(120)),
)
ORDERED = table(
    RouteSpec(name="first", account="main", order=1),
    RouteSpec(name="backup", account="spare", order=2, spill_ms=5_000),
)
SHARING = table(
    RouteSpec(name="one", account="shared"),
    RouteSpec(name="two", account="shared"),
    RouteSpec(name="own", account="other", order=2),
)
PAIRED = table(
    RouteSpec(name="first", account="main"),
    RouteSpec(name="other", account="spare", order=2, models=frozenset({MODEL})),
    main=AccountSpec(name="main", limits=Limits(600), models={MODEL: Limits(60)}),
)


@pytest.fixture
async def routes(valkey: redis.Redis, redis_url: str, request: pytest.FixtureRequest) -> AsyncGenerator[Routes]:
    async with open_routes(valkey, redis_url, request.param) as routes:
        yield routes


def having(routes: RouteTable) -> Any:
    return pytest.mark.parametrize("routes", [routes], indirect=True)


@having(THREE)
async def test_a_fleet_uses_the_sum_of_all_budgets(routes: Routes) -> None:
    await routes.drain()
    granted: Counter[str] = Counter()

    for _ in range(600):
        routes.advance(100)
        granted += await routes.drain()

    assert granted == {
        "big": pytest.approx(600, abs=2),
        "middle": pytest.approx(300, abs=2),
        "small": pytest.approx(120, abs=2),
    }
    assert routes.last.per_second == pytest.approx(17)
    assert routes.last.limits.requests_per_minute == 1_020


@having(THREE)
async def test_equal_orders_share_by_headroom_also_where_there_is_room_for_all(routes: Routes) -> None:
    by_route: Counter[str] = Counter()
    for _ in range(600):
        call = await routes.one()
        by_route[call.route] += 1
        await routes.tell(call)
        routes.advance(200)

    assert by_route["big"] == pytest.approx(600 * 600 / 1_020, rel=0.15)
    assert by_route["small"] == pytest.approx(600 * 120 / 1_020, rel=0.4)


@having(ORDERED)
async def test_a_backup_gets_nothing_while_the_first_keeps_up(routes: Routes) -> None:
    for _ in range(100):
        routes.advance(200)
        for call in await routes.ask(2):
            assert call.route == "first"
            await routes.tell(call)


@having(ORDERED)
async def test_a_request_spills_over_once_it_has_waited_so_long(routes: Routes) -> None:
    await routes.drain()
    early = routes.asked()
    assert await routes.again([early]) == []
    assert routes.last.wait_ms <= 100

    routes.advance(4_999)
    await routes.drain(enqueued_at_ms=routes.now_ms)
    assert await routes.again([early]) == []
    assert routes.last.wait_ms == 1

    routes.advance(1)
    assert [call.route for call in await routes.again([early])] == ["backup"]


@having(ORDERED)
async def test_nobody_waits_for_the_budget_of_a_route_that_is_out_of_order(routes: Routes) -> None:
    await routes.refuse("first", "authentication")

    assert routes.gates == {"first": "authentication_failed"}
    assert (await routes.one()).route == "backup"


@having(SHARING)
async def test_routes_of_one_account_never_exceed_its_limit_together(routes: Routes) -> None:
    await routes.drain(enqueued_at_ms=routes.now_ms)
    granted: Counter[str] = Counter()
    for _ in range(100):
        routes.advance(100)
        granted += await routes.drain()

    assert granted["one"] + granted["two"] == pytest.approx(100, abs=1)
    assert min(granted["one"], granted["two"]) > 20


@having(SHARING)
async def test_a_dead_key_closes_its_route_and_no_other(routes: Routes) -> None:
    await routes.refuse("one", "authentication")

    assert routes.gates == {"one": "authentication_failed"}
    assert set(await routes.drain()) == {"two", "own"}


@having(SHARING)
async def test_an_empty_wallet_closes_every_route_of_its_account(routes: Routes) -> None:
    await routes.empty_wallet("shared")

    assert routes.gates == {"shared": "quota_exhausted"}
    assert set(await routes.drain()) == {"own"}


@having(SHARING)
async def test_throttling_slows_the_account_and_closes_no_route(routes: Routes) -> None:
    before = routes.admission.table.accounts["shared"].limits.requests_per_minute / 60
    await routes.refuse("one", "throttled", times=8)

    assert routes.gates == {}
    routes.advance(2_000)
    await routes.drain()
    assert routes.last.per_second < before + 10


@having(SHARING)
async def test_a_route_that_fails_everybody_is_shut_by_its_own_breaker(routes: Routes) -> None:
    await routes.refuse("one", "overloaded", times=25)

    assert routes.gates == {"one": "breaker_open"}
    assert "two" in await routes.drain()


@having(SHARING)
async def test_a_dead_route_rejoins_by_a_probe(routes: Routes) -> None:
    await routes.refuse("one", "authentication")
    probe = await routes.until("one")
    assert probe.gate == "authentication_failed"
    assert await routes.tell(probe, "authentication")

    routes.advance(PROBE_MS)
    again = await routes.until("one")
    await routes.tell(again, "ok")

    assert routes.gates == {}
    assert (await routes.until("one")).gate == ""


@having(SHARING)
async def test_one_probe_at_a_time(routes: Routes) -> None:
    await routes.refuse("one", "authentication")
    await routes.until("one")

    for _ in range(10):
        routes.advance(1_000)
        assert "one" not in await routes.drain()


@having(ORDERED)
async def test_patience_runs_from_the_moment_when_all_routes_are_known_to_be_out_of_order(routes: Routes) -> None:
    await routes.refuse("first", "authentication")
    await routes.tell(await routes.until("first"), "authentication")
    assert (await routes.one()).route == "backup"
    assert routes.last.outage(MODEL).confirmed_at_ms == 0

    await routes.refuse("backup", "quota")
    routes.advance(1_000)
    await routes.tell(await routes.until("backup"), "quota", code="quota_exhausted")
    assert await routes.ask() == []

    assert routes.admission.gate == "authentication_failed"
    assert routes.last.outage(MODEL).confirmed_at_ms > 0
    assert routes.last.outage(MODEL).code == "authentication"


@having(PAIRED)
async def test_a_model_has_limits_of_its_own_inside_an_account(routes: Routes) -> None:
    await routes.drain(enqueued_at_ms=routes.now_ms)
    of_the_model: Counter[str] = Counter()
    of_another: Counter[str] = Counter()
    for _ in range(100):
        routes.advance(100)
        of_the_model += await routes.drain(model=MODEL)
        of_another += await routes.drain(model="another")

    assert of_the_model["first"] == pytest.approx(10, abs=1)
    assert of_another == {"first": pytest.approx(95, abs=6)}


@having(PAIRED)
async def test_a_model_that_a_route_does_not_have_closes_it_for_that_model(routes: Routes) -> None:
    call = await routes.until("first", model=MODEL)
    await routes.tell(call, "answered", gone=True)

    assert (await routes.one(model=MODEL)).route == "other"
    assert (await routes.one(model="another")).route == "first"
    routes.advance(60_000)
    assert (await routes.one(model=MODEL)).route == "first"


@having(SHARING)
async def test_a_request_that_moves_takes_a_route_that_it_has_not_tried(routes: Routes) -> None:
    call = await routes.one(tried={"one": 1}, moving=True, failures=1)
    assert call.route == "two"

    assert (await routes.one(tried={"one": 1, "two": 1}, moving=True, failures=2)).route == "own"
    assert await routes.ask(tried={"one": 1, "two": 1, "own": 1}, moving=True, failures=3) == []
    assert [answer.word for answer in routes.last.answers] == ["later"]


@having(SHARING)
async def test_a_request_that_moves_comes_back_later_where_no_other_route_is_in_order(routes: Routes) -> None:
    await routes.empty_wallet("shared")

    assert await routes.ask(tried={"own": 1}, moving=True, failures=1) == []
    assert [answer.word for answer in routes.last.answers] == ["later"]


@having(THREE)
async def test_requests_of_one_key_keep_to_a_route_while_it_has_room(routes: Routes) -> None:
    async def route_of(key: str) -> str:
        routes.advance(1_000)
        return (await routes.one(keeps=key)).route

    chosen = {key: await route_of(key) for key in map(str, range(30))}
    again = {key: await route_of(key) for key in chosen}

    assert again == chosen
    assert len(set(chosen.values())) > 1


@having(SHARING)
async def test_a_lost_reply_is_given_again(routes: Routes) -> None:
    asked = [routes.asked() for _ in range(5)]
    calls = await routes.again(asked)
    before = routes.permits()

    again = await routes.again(asked)

    assert [call.token for call in again] == [call.token for call in calls]
    assert routes.permits() == before
    assert await routes.tell(calls[0]) == await routes.tell(calls[0])


@having(SHARING)
async def test_permits_end_with_their_call_or_with_their_lease(routes: Routes) -> None:
    calls = await routes.ask(5)
    assert sum(routes.permits().values()) == sum(1 if call.route == "own" else 2 for call in calls)
    await routes.tell(calls[0])

    routes.advance(LEASE_MS - 1)
    kept = [call.token for call in calls[1:3]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(permits, "ADMISSION", routes.runner.asked["admit_by_route"][0])
        permits.renew(routes.redis, routes.admission.table.states, [*kept, "stranger"], lease_ms=LEASE_MS)
    routes.advance(2)
    await routes.ask()

    held = {token.decode() for key in routes.permits() for token in routes.redis.zrange(key, 0, -1)}
    assert set(kept) <= held
    assert not held & {calls[0].token, calls[3].token, calls[4].token, "stranger"}


def test_a_route_alone_on_its_account_shares_its_state() -> None:
    assert {state.scope for state in THREE.states} == {f"default:account:{name}" for name in ("big", "middle", "small")}
    assert {state.scope for state in SHARING.states} == {
        "default:account:shared", "default:account:other", "default:route:one", "default:route:two",
    }  # fmt: skip


def test_the_account_default_keeps_the_keys_of_a_fleet_without_a_file() -> None:
    single = table(RouteSpec(name="default", account="default"))

    assert single.is_single
    assert [state.scope for state in single.states] == ["default"]
