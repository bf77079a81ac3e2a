"""The name of every key in Redis, in one place; scripts receive them as KEYS.

Names that producers and consumers use as well are defined in `api_contracts.queues`. Each function returns the keys
of one thing by the short names that commands declare, so that a caller joins what it needs:
`keys.lane("batch") | keys.request("acme", "r1")`.
"""

from collections.abc import Mapping
from functools import cache
from typing import Final

from api_contracts.queues import (
    DEAD_STREAM,
    DELAYED,
    LANES,
    PRIORITIES,
    STREAMS,
    cancel_key,
    delta_stream,
    lane_list,
    request_key,
)

Keys = dict[str, str]

INFLIGHT: Final = "responses:inflight:"
PARKED: Final = "responses:parked:"
LOST: Final = "responses:lost:"
FALLEN: Final = "responses:fallen:"
PREFIXES: Final[Mapping[str, str]] = {
    "INFLIGHT": INFLIGHT,
    "PARKED": PARKED,
    "DELAYED": DELAYED,
    "LOST": LOST,
    "FALLEN": FALLEN,
}
"""For scripts that find in Redis which lane, message or process is meant: only there a key's name is made in Lua."""

FAILED_STREAM: Final = "responses:failed"
FAILED: Final[Mapping[str, str]] = {"FAILED": FAILED_STREAM, "FAILED_MESSAGES": "responses:failed:messages"}
"""For scripts as well: the messages of requests that ended in a retryable failure."""

LISTS: Final = tuple(f"list{priority}" for priority in PRIORITIES)
"""A lane's lists, the highest priority first."""

UPSTREAM: Final = ("quota", "permits", "evidence", "times", "shared")

FLEET: Final[Keys] = {
    "dead": DEAD_STREAM,
    "kept": "responses:kept",
    "streams": STREAMS,
    "reclaimer": "responses:reclaimer",
    "retainer": "responses:retainer",
    "lanes": LANES,
    "keeper": "responses:keeper",
    "moved": "responses:moved",
    "audit": "responses:audit",
    "usage": "responses:usage",
}


@cache
def lane(name: str) -> Keys:
    """The keys that hold the messages of one lane."""
    return {
        "inflight": f"{INFLIGHT}{name}",
        "leases": f"responses:leases:{name}",
        "claims": f"responses:claims:{name}",
        "parked": f"{PARKED}{name}",
        "delayed": f"{DELAYED}{name}",
        "bell": f"responses:bell:{name}",
    } | {short: lane_list(name, priority) for short, priority in zip(LISTS, PRIORITIES, strict=True)}


@cache
def upstream(name: str) -> Keys:
    """The fleet's knowledge of one upstream, and the calls in flight to it (`admission/lua/state.lua`)."""
    return {short: f"responses:{short}:{name}" for short in UPSTREAM}


@cache
def fleet(name: str) -> Keys:
    """The workers of one fleet, and what they did in the last hour (`operations/lua/registry.lua`)."""
    return {short: f"responses:{short}:{name}" for short in ("workers", "loads", "history", "tenants")}


def request(tenant: str, request_id: str) -> Keys:
    """One request: its state, its cancel mark and its token deltas."""
    return {
        "request": request_key(tenant, request_id),
        "cancel": cancel_key(tenant, request_id),
        "deltas": delta_stream(tenant, request_id),
    }


def task(task_id: str) -> Keys:
    """One Celery task: the mark that cancels it, and the way to its request while that is parked."""
    return {"cancel_task": cancel_key("", task_id), "task": f"responses:task:{task_id}"}


def waiting_list(name: str) -> Keys:
    """One list of a lane, and what the search for cancelled messages remembers of it."""
    return {"list": name, "sweeper": f"responses:sweeper:{name}"}
