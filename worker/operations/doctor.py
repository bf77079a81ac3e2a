"""Looks at everything a worker will stand on, and says what to change: its settings, its Redis, its gateway.

Nothing is written anywhere and nothing is paid for. Settings are judged here, without asking anybody; the other two
are asked by `redis_health` and `gateway_health`.
"""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from urllib.parse import urlsplit

from worker.config.names import PREFIX, unknown_names
from worker.config.settings import Settings
from worker.config.values import read_key
from worker.operations.findings import Finding, fail, ok, warn
from worker.operations.gateway_health import examine_gateway
from worker.operations.redis_health import examine_redis
from worker.operations.routes_health import (
    UNENCRYPTED,
    UNKNOWN_LIMITS,
    examine_routes,
    judge_routing,
    travels_unencrypted,
    unsendable,
)


def examine(settings: Settings, environment: Mapping[str, str]) -> Iterator[Finding]:
    """Every finding, as it is found; takes as long as the gateway does to answer a few requests."""
    yield from judge_settings(settings, environment)
    yield from examine_redis(settings.redis, settings.lanes)
    if settings.config_file:
        yield from examine_routes(settings.routing, settings.models, settings.proxy_for)
    else:
        key, url = api_key(settings), settings.upstream_url
        known = key if isinstance(key, str) else ""
        yield from examine_gateway(url, known, settings.models, settings.proxy_for)


def misread(mistakes: str) -> list[Finding]:
    """Settings that would stop the start: one finding for each line."""
    return [fail("settings", line, "set it as its line says, or unset it") for line in mistakes.splitlines()]


def api_key(settings: Settings) -> str | Finding:
    """The key, or why there is none that could be sent."""
    name = "WORKER_UPSTREAM_API_KEY"
    try:
        key = read_key(file) if (file := settings.upstream_api_key_file) else settings.api_key()
    except ValueError as error:
        return fail("settings.key", f"{name}_FILE {error}", f"correct {name}_FILE or its permissions")
    if not key:
        return fail("settings.key", "no key is set", f"set {name}, or {name}_FILE to a file that holds it")
    if unsendable(key):
        return fail("settings.key", "the key has characters that no header can carry", "copy the key again")
    return key


def judge_settings(settings: Settings, environment: Mapping[str, str]) -> Iterator[Finding]:
    """Wrong or suspicious values in settings that can be read."""
    if settings.config_file:
        yield from judge_routing(settings.routing, settings.model_fields_set)
    else:
        yield from _one_upstream(settings)
    yield _names(environment)
    yield _deadlines(settings)
    yield _grace(settings)
    yield _lanes(settings)


def _one_upstream(settings: Settings) -> Iterator[Finding]:
    key = api_key(settings)
    source = "from the environment" if settings.upstream_api_key else "from its file"
    yield key if isinstance(key, Finding) else ok("settings.key", f"set, {source}")
    yield _transport(settings)
    yield _limits(settings)


def _names(environment: Mapping[str, str]) -> Finding:
    """Only names are shown: a misspelt variable may hold the key."""
    unknown = unknown_names(environment)
    if not unknown:
        return ok("settings.names", "every WORKER_ variable is a setting")
    listed = ", ".join(f"{name} (did you mean {near}?)" if near else name for name, near in unknown.items())
    return warn("settings.names", f"no such setting: {listed}", "correct or unset them")


def _transport(settings: Settings) -> Finding:
    if travels_unencrypted(settings.upstream_url):
        return warn("settings.upstream_url", UNENCRYPTED, "use https:// in WORKER_UPSTREAM_URL")
    url = urlsplit(settings.upstream_url)
    return ok("settings.upstream_url", f"{url.scheme}, {url.hostname}")


def _limits(settings: Settings) -> Finding:
    limits = {
        "requests a minute": settings.requests_per_minute,
        "tokens a minute": settings.tokens_per_minute,
        "in flight": settings.max_in_flight,
    }
    known = [f"{limit} {name}" for name, limit in limits.items() if limit]
    if known:
        return ok("settings.limits", ", ".join(known))
    return warn(
        "settings.limits",
        UNKNOWN_LIMITS,
        "set WORKER_REQUESTS_PER_MINUTE, WORKER_TOKENS_PER_MINUTE or WORKER_MAX_IN_FLIGHT to what your key allows",
    )


def _deadlines(settings: Settings) -> Finding:
    timeout = settings.request_timeout
    short = [lane for lane in settings.lanes if settings.deadline_for(lane) < timeout]
    if not short:
        return ok("settings.deadlines", f"every lane's default leaves time for a call of {_seconds(timeout)}")
    return warn(
        "settings.deadlines",
        f"shorter than a call may take ({_seconds(timeout)}): {', '.join(short)}",
        "raise WORKER_DEFAULT_DEADLINE or lower WORKER_REQUEST_TIMEOUT",
    )


def _grace(settings: Settings) -> Finding:
    grace, timeout = settings.shutdown_grace, settings.request_timeout
    if grace >= timeout:
        return ok("settings.grace", f"{_seconds(grace)}, as long as any call")
    return warn(
        "settings.grace",
        f"a call may take {_seconds(timeout)}; what outlasts {_seconds(grace)} at SIGTERM is called again later",
        "raise WORKER_SHUTDOWN_GRACE (and what kills the process after it), or lower WORKER_REQUEST_TIMEOUT",
    )


def _lanes(settings: Settings) -> Finding:
    """Lanes that only a per-lane setting names; the defaults of those name lanes of ours."""
    given = settings.model_fields_set & {"default_deadline", "patience"}
    named = {lane for field in given for lane in getattr(settings, field)} - {"*"}
    strange = sorted(named - settings.lanes.keys())
    served = ", ".join(settings.lanes)
    if not strange:
        return ok("settings.lanes", f"serves {served}")
    variables = " and ".join(PREFIX + field.upper() for field in sorted(given))
    return warn(
        "settings.lanes",
        f"serves {served}; {variables} also name {', '.join(strange)}",
        "add those lanes to WORKER_LANES, if they are no slip of the pen",
    )


def _seconds(span: timedelta) -> str:
    return f"{span.total_seconds():g} s"
