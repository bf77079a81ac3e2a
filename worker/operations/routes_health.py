"""The doctor's view of a configuration file: its keys, limits and URLs, and whether each route answers."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from typing import Final
from urllib.parse import urlsplit

from api_contracts import MODELS
from worker.config.environment import variable
from worker.config.routing import Route, Routing
from worker.config.settings import Settings
from worker.operations.findings import Finding, fail, ok, warn
from worker.operations.gateway_health import direct, examine_gateway

UNENCRYPTED: Final = "the key and all prompts travel unencrypted"
UNKNOWN_LIMITS: Final = "no limit of the gateway is known, so the fleet finds it by being refused"
REPLACED: Final = (
    "upstream_url",
    "upstream_api_key",
    "upstream_api_key_file",
    "requests_per_minute",
    "tokens_per_minute",
    "max_in_flight",
)
"""Settings that do nothing beside a file."""

_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


def travels_unencrypted(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme == "http" and parts.hostname not in _LOOPBACK


def unsendable(key: str) -> bool:
    """Whether no header can carry this key."""
    return not (key.isascii() and key.isprintable() and " " not in key)


def judge_routing(routing: Routing, given: Collection[str]) -> Iterator[Finding]:
    """Wrong or suspicious values in a file that can be read; `given` are the settings that somebody has set."""
    if idle := [variable(Settings, name) for name in REPLACED if name in given]:
        yield warn("settings.config_file", f"{', '.join(idle)} do nothing beside WORKER_CONFIG_FILE", "unset them")
    else:
        yield ok("settings.config_file", f"{len(routing.routes)} routes, {len(routing.accounts)} accounts")
    for route in routing.routes.values():
        yield _judge_key(route)
        if travels_unencrypted(route.url):
            yield warn(f"routes.{route.name}.url", UNENCRYPTED, f"use https:// in routes.{route.name}.url")
    yield from _judge_accounts(routing)


def examine_routes(
    routing: Routing, models: Collection[str] = MODELS, proxy_for: Callable[[str], str] = direct
) -> Iterator[Finding]:
    """Every finding about the gateway and the key of each route, as `gateway_health` makes them.

    `models` are asked of routes that name none.
    """
    for route in routing.routes.values():
        there = tuple(route.models.values()) or models
        for finding in examine_gateway(route.url, route.key.read(), there, proxy_for):
            check = f"routes.{route.name}{finding.check.removeprefix('gateway')}"
            change = finding.change.replace("WORKER_UPSTREAM_URL", f"routes.{route.name}.url")
            yield replace(finding, check=check, change=change)


def _judge_key(route: Route) -> Finding:
    check, where = f"routes.{route.name}.key", f"routes.{route.name}.{'key_file' if route.key.file else 'key_env'}"
    try:
        key = route.key.checked()
    except ValueError as error:
        return fail(check, f"{where} {error}", f"correct {where}, or what it names")
    if not key:
        return fail(check, f"the {route.key.place} is empty", "put the key into it")
    if unsendable(key):
        return fail(check, "the key has characters that no header can carry", "copy the key again")
    return ok(check, f"set, from {route.key.place}")


def _judge_accounts(routing: Routing) -> Iterator[Finding]:
    called = {route.account for route in routing.routes.values()}
    for account in routing.accounts.values():
        if account.name not in called:
            yield warn(f"accounts.{account.name}", "no route is charged to it", "remove it, or name it in a route")
        elif not account.budget.known:
            yield warn(f"accounts.{account.name}", UNKNOWN_LIMITS, "set its limits to what the account allows")
