"""While all routes have room a few requests ask one of them; whatever it cannot start at once is asked of all."""

from typing import Any

import pytest
from support.admission_parts import ask
from support.route_parts import MODEL, ORDERED, PAIRED, THREE, Routes, having, table

from worker.admission.commands import Told
from worker.admission.first_choice import FirstChoice
from worker.admission.grants import Limits
from worker.admission.route_table import AccountSpec, RouteSpec, RouteTable

UNKNOWN = table(
    RouteSpec(name="known", account="known"),
    RouteSpec(name="unknown", account="unknown"),
    unknown=AccountSpec(name="unknown", limits=Limits()),
)


def looked_at(routes: Routes) -> list[str]:
    """The states that the last question named."""
    _, _, _, _, groups, _ = routes.runner.asked["admit_by_route"]
    return [group.keys["quota"].rpartition(":")[2] for group in groups]


@having(THREE)
async def test_one_route_is_asked_while_all_have_room(routes: Routes) -> None:
    await routes.ask(20)  # more than there is room for
    routes.advance(5_000)
    await routes.one()
    assert looked_at(routes) == ["big", "middle", "small"]
    per_second, limits = routes.last.per_second, routes.last.limits

    for _ in range(3):
        call = await routes.one()
        assert looked_at(routes) == [call.route]
    assert (routes.last.per_second, routes.last.limits) == (per_second, limits)


@having(THREE)
async def test_calls_that_the_first_choice_cannot_start_go_by_another(routes: Routes) -> None:
    """None of them is granted twice."""
    granted = [await routes.one()]
    while more := await routes.ask(3):
        granted += more

    assert looked_at(routes) == ["big", "middle", "small"]
    assert len(granted) == sum(routes.permits().values()) == pytest.approx(8.5, abs=1.5)


def choice_of(routes: RouteTable, **told: Any) -> FirstChoice:
    """After a look at all that found room for everybody; `told` is of the first account."""
    first = routes.states[0]
    choice = FirstChoice(routes, lambda state: Told.unseen(state.limits)._replace(**told if state == first else {}))
    choice.looked([asked()], room=True)
    return choice


def asked(**said: Any) -> Any:
    return ask("t", 1, now_ms=1, model=MODEL, **said)


@pytest.mark.parametrize(
    "special", [{"keeps": "key"}, {"failures": 1}, {"tried": {"big": 1}}, {"body": "five of them"}], ids=str
)
def test_requests_that_choose_for_themselves_see_all_routes(special: dict[str, Any]) -> None:
    count = 5 if "body" in special else 1

    assert choice_of(THREE).of([asked(**special)] * count) is None


@pytest.mark.parametrize("told", [{"gate": "authentication_failed"}, {"paused": True}], ids=str)
def test_all_see_a_route_that_is_shut(told: dict[str, Any]) -> None:
    """Or no probe would be found for it."""
    assert choice_of(THREE).of([asked()])
    assert choice_of(THREE, **told).of([asked()]) is None


def test_limits_that_nobody_knows_are_no_measure_of_room() -> None:
    assert choice_of(UNKNOWN).of([asked()]) is None


def test_another_model_is_another_matter() -> None:
    assert choice_of(THREE).of([ask("t", 1, now_ms=1, model="another")]) is None


@pytest.mark.parametrize("routes", [ORDERED, PAIRED])
def test_only_the_lowest_order_is_chosen(routes: RouteTable) -> None:
    ways = choice_of(routes).of([asked()])

    assert ways
    assert [way.route.name for way in ways.ways] == ["first"]


def test_a_choice_without_room_is_the_last_for_a_while() -> None:
    choice = choice_of(THREE)
    choice.missed()
    choice.looked([asked()], room=True)

    assert choice.of([asked()]) is None
