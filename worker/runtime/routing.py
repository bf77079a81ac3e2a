"""The rooms' views of the configured routes: admission, the gateways, and the map that requests move by."""

from collections.abc import Callable, Sequence

import redis

from worker.admission import permits
from worker.admission.client import Admission
from worker.admission.events import AdmissionEvents
from worker.admission.routed import RoutedAdmission
from worker.config.settings import Settings
from worker.gateway.gateways import Gateways
from worker.gateway.upstream import Upstream
from worker.operations.route_view import table_of
from worker.queue.leases import LEASE_MS
from worker.request.routes import RouteMap
from worker.storage.scripts import ScriptRunner


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
            proxy=settings.proxy_for(route.url),
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
