"""Several routes: each call goes where there is room, and what a call says is believed of whom it is about."""

from collections import Counter

import pytest
from support.admission_parts import PROBE_MS
from support.route_parts import ORDERED, SHARING, THREE, Routes, having


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
    assert routes.last.wait_ms <= 200

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
