"""Requests with several routes: patience, models, moves, affinity, permits, and lost replies."""

import heapq
from collections import Counter
from dataclasses import replace

import pytest
from support.admission_parts import LEASE_MS
from support.route_parts import MODEL, ORDERED, PAIRED, SHARING, THREE, Routes, having, table

from worker.admission import permits
from worker.admission.grants import Limits
from worker.admission.route_table import AccountSpec, RouteSpec


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


ALONE = table(
    RouteSpec(name="first", account="main"),
    main=AccountSpec(name="main", limits=Limits(600), models={MODEL: Limits(60)}),
)


@having(ALONE)
async def test_a_lane_that_waits_for_its_model_holds_up_no_other_lane(routes: Routes) -> None:
    """The account has ten times what the model of that lane has."""
    granted: Counter[str] = Counter()
    for _ in range(400):
        routes.advance(50)
        for lane, model in (("waiting", MODEL), ("other", "another")):
            calls = await routes.ask(8, lane=lane, model=model)
            granted[lane] += len(calls)
            for call in calls:
                await routes.tell(call)

    assert granted.total() == pytest.approx(200, abs=10)
    assert granted["waiting"] == pytest.approx(20, abs=5)


SPILLING = table(
    RouteSpec(name="first", account="main"),
    RouteSpec(name="backup", account="spare", order=2, spill_ms=300),
    spare=AccountSpec(name="spare", limits=Limits(6_000)),
)


@having(SPILLING)
async def test_who_waits_in_turn_goes_elsewhere_as_soon_as_that_is_allowed(routes: Routes) -> None:
    """Sixty processes with a request each, as often as the first route can bear them and more."""
    await routes.drain()
    began_ms = routes.now_ms
    asked = [replace(routes.asked(), enqueued_at_ms=began_ms + 17 * number) for number in range(60)]
    due = [(one.enqueued_at_ms, number, one) for number, one in enumerate(asked)]
    waited: list[int] = []
    while due:
        at, number, one = heapq.heappop(due)
        routes.advance(max(0, at - routes.now_ms))
        if await routes.again([one]):
            waited.append(routes.now_ms - one.enqueued_at_ms)
        else:
            heapq.heappush(due, (routes.now_ms + min(1_000, max(50, routes.last.wait_ms)), number, one))

    assert max(waited) <= 300 + 50
