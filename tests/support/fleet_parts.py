"""Lanes, upstreams and workers as an operator's reads find them, with plain values where a test says nothing."""

from typing import Any

from worker.operations.overview import Budget, Lane, Upstream
from worker.operations.registry import Holding, Load, Worker


def lane(ready: int = 0, **changes: Any) -> Lane:
    plain: dict[str, Any] = {
        "in_flight": 0,
        "parked": 0,
        "oldest_lease_ms": None,
        "next_due_ms": None,
        "oldest_age_ms": None,
    }
    return Lane(ready={0: ready}, **plain | changes)


def upstream(**changes: Any) -> Upstream:
    plain: dict[str, Any] = {
        "in_flight": 0,
        "in_flight_limit": 0,
        "waiting": 0,
        "requests": Budget(limit=0, rate=0, used=0),
        "tokens": Budget(limit=0, rate=0, used=0),
        "state": "open",
        "code": "",
        "next_call_ms": 0,
        "since_ms": None,
        "pause": None,
        "waits_for": "",
    }
    return Upstream(**plain | changes)


def worker(*lanes: str, **changes: Any) -> Worker:
    holds = {name: Holding(*counts) for name, counts in changes.pop("holds", {}).items()}
    load = Load(holds=holds, draining=changes.pop("draining", False), backlog=changes.pop("backlog", ""))
    plain: dict[str, Any] = {
        "id": "w",
        "host": "h",
        "pid": 1,
        "version": "1",
        "concurrency": 10,
        "up_s": 60.0,
        "silent_ms": 1_000,
        "per_second": {},
    }
    return Worker(lanes=dict.fromkeys(lanes or ("interactive",), 1), load=load, **plain | changes)
