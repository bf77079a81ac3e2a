"""Requests with several routes: patience, models, moves, affinity, permits, and lost replies."""

from collections import Counter

import pytest
from support.admission_parts import LEASE_MS
from support.route_parts import MODEL, ORDERED, PAIRED, SHARING, THREE, Routes, having, table

from worker.admission import permits
from worker.admission.route_table import RouteSpec


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


@having(ORDERED)
async def test_a_process_takes_requests_early_enough_to_see_them_wait_as_long_as_they_must(routes: Routes) -> None:
    """Most callers do not tell when they enqueued."""
    assert routes.admission.ahead_s == 5


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
    await routes.ask(5)  # too many to ask one route

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
