"""Several accounts whose limits nobody told: found side by side, and no more is refused for it."""

from collections import Counter

import pytest
from oracles.controller import slow_start
from oracles.controller.pace import Pace
from support.route_parts import Routes, having, table

from worker.admission.grants import Limits, Reservation
from worker.admission.route_table import AccountSpec, RouteSpec

RATES = {"big": 10.0, "middle": 5.0, "small": 2.0}
ALIKE = table(
    *(RouteSpec(name=name, account=name) for name in RATES),
    **{name: AccountSpec(name=name, limits=Limits()) for name in RATES},
)
LONELY = table(
    RouteSpec(name="big", account="big"),
    RouteSpec(name="known", account="known"),
    RouteSpec(name="backup", account="backup", order=2),
    big=AccountSpec(name="big", limits=Limits()),
    backup=AccountSpec(name="backup", limits=Limits()),
)


@having(ALIKE)
async def test_the_first_calls_are_few_for_all_together(routes: Routes) -> None:
    first = await routes.drain()

    assert max(first.values()) == 3
    assert first.total() == 9


@having(LONELY)
async def test_accounts_of_known_limits_and_of_other_orders_hold_nobody_back(routes: Routes) -> None:
    assert (await routes.drain())["big"] == 16


@having(ALIKE)
async def test_unknown_limits_are_found_and_kept(routes: Routes) -> None:
    """Buckets of ten seconds; a refusal comes after 200 ms, and an answer after 800."""
    levels = {name: 10 * rate for name, rate in RATES.items()}
    refused, calls, late = Counter[str](), Counter[str](), Counter[str]()
    ends: list[list[tuple[Reservation, bool]]] = [[] for _ in range(5)]
    for tick in range(5 * 120):
        routes.advance(200)
        for call, good in ends.pop(0):
            await routes.tell(call, "ok" if good else "throttled")
        ends.append([])
        for name, rate in RATES.items():
            levels[name] = min(10 * rate, levels[name] + rate / 5)
        for call in await routes.ask(20):
            good = levels[call.route] >= 1
            levels[call.route] -= good
            calls[call.route] += 1
            refused[call.route] += not good
            late[call.route] += good and tick >= 5 * 30
            ends[3 if good else 0].append((call, good))

    assert refused.total() <= 0.03 * calls.total()
    assert {name: late[name] / 90 for name in RATES} == pytest.approx(RATES, rel=0.2)


@having(ALIKE)
async def test_windows_grow_as_simulated(routes: Routes) -> None:
    """All calls are answered after 800 ms, and nothing is refused."""
    simulated = {name: Pace(now_ms=routes.now_ms) for name in RATES}
    for pace in simulated.values():
        slow_start.begin(pace.state, routes.now_ms, len(RATES))
    ends: list[list[Reservation]] = [[] for _ in range(4)]
    for _ in range(80):
        routes.advance(200)
        for call in ends.pop(0):
            await routes.tell(call)
            simulated[call.route].ended(routes.now_ms, call.granted_at_ms, passed=True)
        for pace in simulated.values():
            pace.ended(routes.now_ms, 0, passed=False)  # no call of ours: time passes
        ends.append(await routes.ask(400))
        for call in ends[-1]:
            slow_start.grant(simulated[call.route].state.slow)

    windows = {name: float(routes.redis.hget(scope(name), "st_window") or 0) for name in RATES}
    assert windows == pytest.approx({name: pace.state.slow.window for name, pace in simulated.items()})
    assert min(windows.values()) > slow_start.HUGE / 2 / len(RATES)


def scope(account: str) -> str:
    return f"responses:quota:default:account:{account}"
