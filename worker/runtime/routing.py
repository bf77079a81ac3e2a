"""The rooms' views of the configured routes: admission's table, the gateways, and the map that requests move by."""

from collections.abc import Callable, Sequence

import redis

from worker.admission import permits
from worker.admission.client import Admission
from worker.admission.events import AdmissionEvents
from worker.admission.grants import Limits
from worker.admission.route_table import AccountSpec, RouteSpec, RouteTable
from worker.admission.routed import RoutedAdmission
from worker.config.routing import Budget
from worker.config.settings import Settings
from worker.gateway.gateways import Gateways
from worker.gateway.upstream import Upstream
from worker.queue.leases import LEASE_MS
from worker.request.routes import RouteMap
from worker.storage.scripts import ScriptRunner


def table_of(settings: Settings) -> RouteTable:
    """The routes as admission sees them."""
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


def admission_of(settings: Settings, runner: ScriptRunner, events: AdmissionEvents) -> Admission | RoutedAdmission:
    """Admission for one route, which costs least, or for several."""
    table = table_of(settings)
    longest_pause_ms = round(settings.max_pause.total_seconds() * 1000)
    probe_ms = round(settings.probe_interval.total_seconds() * 1000)
    if table.is_single:
        route = table.routes[0]
        state = table.route_state(route)
        return Admission(
            runner=runner,
            limits=state.limits,
            lease_ms=LEASE_MS,
            longest_pause_ms=longest_pause_ms,
            probe_ms=probe_ms,
            upstream=state.scope,
            route=route.name,
            events=events,
        )
    return RoutedAdmission(
        runner=runner,
        table=table,
        burst_s=settings.burst_seconds,
        lease_ms=LEASE_MS,
        longest_pause_ms=longest_pause_ms,
        probe_ms=probe_ms,
        events=events,
    )


def gateways_of(settings: Settings) -> Gateways:
    """A session for each route: an address, and the key as it is at each call."""
    routes = settings.routing.routes.values()
    upstreams = {
        route.name: Upstream(
            route.name,
            route.url,
            route.key.read,
            silence_s=settings.idle_timeout.total_seconds() or None,
            max_answer_bytes=settings.max_answer,
        )
        for route in routes
    }
    return Gateways(upstreams, {route.name: route.models for route in routes if route.models})


def route_map(settings: Settings) -> RouteMap:
    """The other routes that a request may move to."""
    routes = settings.routing.routes.values()
    return RouteMap(
        {route.name: route.account for route in routes}, {route.name: route.models.keys() or None for route in routes}
    )


def permit_renewal(settings: Settings, client: redis.Redis) -> Callable[[Sequence[str]], None] | None:
    """Extends the permits of calls in the states of routes; None where the ledger's own renewal does that."""
    table = table_of(settings)
    if all(state.scope == settings.fleet for state in table.states):
        return None
    return lambda tokens: permits.renew(client, table.states, tokens, lease_ms=LEASE_MS)


def _limits(budget: Budget, burst_s: float) -> Limits:
    return Limits(budget.requests_per_minute, budget.tokens_per_minute, budget.max_in_flight, burst_s)
