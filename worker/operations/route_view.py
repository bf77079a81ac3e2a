"""The state of each route at one moment: read-only, a few O(1) reads per route."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple, cast

from worker.admission.grants import Limits
from worker.admission.route_table import AccountSpec, RouteSpec, RouteTable
from worker.config.routing import Budget
from worker.config.settings import Settings
from worker.operations.overview import Budget as BudgetView
from worker.operations.overview import Overview, Upstream, read
from worker.storage import keys

RECENT_MS: Final = 60_000
"""Evidence that is older than this is forgotten (`admission/lua/evidence.lua`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteView:
    """One route as operators see it; durations from now."""

    name: str
    account: str
    order: int
    state: str
    """`open`, `throttled`, `paused`, or the gate that is shut."""
    code: str
    """The error code that shut the gate."""
    next_call_ms: int
    """Until its pause ends or its gate is probed; 0 where nothing is in the way, or an operator is."""
    in_flight: int
    allowed: float
    """Requests a minute that its account may start now."""
    headroom: float
    """The part of that which the last minute did not use."""
    used: int
    """Its calls of the last minute."""
    share: float
    """Of the calls of all routes in the last minute, 0 to 1."""
    last_error: str
    """The kind of refusal or failure that was seen last, within a minute."""
    last_error_ms: int
    """Since then."""


def table_of(settings: Settings) -> RouteTable:
    """The configured routes as admission sees them."""
    routing, burst_s = settings.routing, settings.burst_seconds
    accounts = {
        account.name: AccountSpec(
            name=account.name,
            limits=_limits(account.budget, burst_s),
            models={model: _limits(budget, burst_s) for model, budget in account.models.items()},
        )
        for account in routing.accounts.values()
    }
    routes = tuple(
        RouteSpec(
            name=route.name,
            account=route.account,
            order=route.order,
            spill_ms=round(route.spill_after.total_seconds() * 1000),
            models=frozenset(route.models) or None,
        )
        for route in routing.routes.values()
    )
    return RouteTable(fleet=settings.fleet, routes=routes, accounts=accounts)


class Place(NamedTuple):
    """The state of one route or account; a route alone on its account shares the account's."""

    scope: str
    """`overview.read` takes scopes as names of upstreams."""
    about: Mapping[str, str]
    """`route` or `account`, and its name, as options of `resume` have it; empty where there is nothing to choose."""
    account: str
    """The name of the place of its account; its own where it is one."""


def places_of(table: RouteTable) -> Mapping[str, Place]:
    """Every state but those of models, by the name that operators know it by."""
    accounts = {name: table.account_state(account) for name, account in table.accounts.items()}
    of_routes = {table.route_state(route).scope: accounts[route.account].label for route in table.routes}
    names = {route.name for route in table.routes}
    states = [state for state in table.states if ":model:" not in state.scope]
    return {
        state.label: Place(
            scope=state.scope,
            about={"route" if state.label in names else "account": state.label} if len(states) > 1 else {},
            account=of_routes.get(state.scope, state.label),
        )
        for state in states
    }


def scopes_of(table: RouteTable) -> Mapping[str, str]:
    """The scope of each place by its name."""
    return {name: place.scope for name, place in places_of(table).items()}


def ways_of(places: Mapping[str, Place]) -> list[tuple[str, str]]:
    """Each route with its account, by their names; both must be open for a call."""
    shared = {place.account for name, place in places.items() if place.account != name}
    return [(name, place.account) for name, place in places.items() if name not in shared]


def decisive(upstreams: Mapping[str, Upstream], places: Mapping[str, Place]) -> Upstream:
    """The state that the fleet's calls depend on: of a way that is open, if there is one."""
    ways = [max(upstreams[route], upstreams[account], key=_hindrance) for route, account in ways_of(places)]
    return min(ways, key=_hindrance)


def _hindrance(upstream: Upstream) -> int:
    return {"open": 0, "throttled": 1, "paused": 3}.get(upstream.state, 2)


def together(upstreams: Mapping[str, Upstream], places: Mapping[str, Place]) -> Upstream:
    """All accounts as one: their calls and budgets added up, and the state of the decisive one."""
    accounts = [upstreams[name] for name, place in places.items() if place.account == name]
    if len(accounts) == 1:
        return accounts[0]
    limits = [account.in_flight_limit for account in accounts]
    return replace(
        decisive(upstreams, places),
        in_flight=sum(account.in_flight for account in accounts),
        in_flight_limit=sum(limits) if all(limits) else 0,
        requests=_sum([account.requests for account in accounts]),
        tokens=_sum([account.tokens for account in accounts]),
    )


def _sum(budgets: Sequence[BudgetView]) -> BudgetView:
    """Without a limit as soon as one has none."""
    limits = [budget.limit for budget in budgets]
    return BudgetView(
        limit=sum(limits) if all(limits) else 0,
        overridden=any(budget.overridden for budget in budgets),
        rate=round(sum(budget.rate for budget in budgets), 1),
        used=sum(budget.used for budget in budgets),
    )


class UnknownNameError(Exception):
    """No route or account has the name that was given; the message says which there are."""


def scopes_to_change(table: RouteTable, route: str, account: str, *, limits: bool) -> list[str]:
    """The scopes of the states that an operator means: of a route, of an account, or of the whole fleet.

    Limits are an account's: there, a route stands for its account, and one of several must be named. Raises
    UnknownNameError.
    """
    if route and account:
        raise UnknownNameError("--route and --account: give one of them")
    routes = {spec.name: spec for spec in table.routes}
    if route and route not in routes:
        raise UnknownNameError(f"--route: there is no such route; there are {', '.join(routes)}")
    if account and account not in table.accounts:
        raise UnknownNameError(f"--account: there is no such account; there are {', '.join(table.accounts)}")
    if route and not limits:
        return [table.route_state(routes[route]).scope]
    named = routes[route].account if route else account
    if named:
        return [table.account_state(table.accounts[named]).scope]
    if limits and len(table.accounts) > 1:
        raise UnknownNameError(f"--account: name one of {', '.join(table.accounts)}")
    return [state.scope for state in table.states]


def read_routes(redis: Any, table: RouteTable) -> list[RouteView]:
    """Every route, in the order of the file. Raises redis.RedisError."""
    states = {
        route.name: (table.route_state(route), table.account_state(table.accounts[route.account]))
        for route in table.routes
    }
    scopes = {state.scope for pair in states.values() for state in pair}
    seconds, micros = redis.time()
    now_ms = seconds * 1000 + micros // 1000
    overview: Overview = read(redis, [], scopes, at_ms=now_ms)
    total = sum(overview.upstreams[own.scope].requests.used for own, _ in states.values())
    return [
        _view(
            route,
            overview.upstreams[states[route.name][0].scope],
            overview.upstreams[states[route.name][1].scope],
            total,
            _last_error(redis, [state.scope for state in states[route.name]], now_ms),
        )
        for route in table.routes
    ]


def _view(route: RouteSpec, own: Upstream, account: Upstream, total: int, last: tuple[str, int]) -> RouteView:
    shut = own if own.state != "open" else account
    return RouteView(
        name=route.name,
        account=route.account,
        order=route.order,
        state=shut.state,
        code=shut.code,
        next_call_ms=shut.next_call_ms,
        in_flight=own.in_flight,
        allowed=account.requests.rate,
        headroom=max(0.0, round(account.requests.rate - account.requests.used, 1)),
        used=own.requests.used,
        share=own.requests.used / total if total else 0.0,
        last_error=last[0],
        last_error_ms=last[1],
    )


def _last_error(redis: Any, scopes: Sequence[str], now_ms: int) -> tuple[str, int]:
    """The latest tally of the states, and its age; nothing where all are forgotten."""
    latest, at = "", 0
    for scope in dict.fromkeys(scopes):
        for kind, tally in redis.hgetall(keys.upstream(scope)["evidence"]).items():
            seen = cast("dict[str, Any]", json.loads(tally))
            if seen["at"] > at and now_ms - seen["at"] <= RECENT_MS:
                latest, at = kind.decode(), seen["at"]
    return latest, (now_ms - round(at)) if latest else 0


def _limits(budget: Budget, burst_s: float) -> Limits:
    return Limits(budget.requests_per_minute, budget.tokens_per_minute, budget.max_in_flight, burst_s)
