"""Where everything is, at one moment: read-only, a handful of O(1) reads per lane and stream."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from api_contracts.queues import DEAD_STREAM, RESULT_STREAM, lane_queue

PRIORITIES: Final = {0: "", 3: "\x06\x163", 6: "\x06\x166", 9: "\x06\x169"}
"""Celery's priority steps and the suffixes of their lists; 0 is the highest (kombu's Redis transport)."""

_STREAMS: Final = "responses:streams"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """One lane; times in ms from now, negative once they have passed, None where there is nothing."""

    ready: Mapping[int, int]
    """Waiting messages by priority."""
    in_flight: int
    parked: int
    oldest_lease_ms: int | None
    """When the lease that was renewed longest ago runs out: near 15 s while workers are well."""
    next_due_ms: int | None

    @property
    def left(self) -> int:
        """Messages that have no answer yet."""
        return sum(self.ready.values()) + self.in_flight + self.parked


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A consumer group of a result stream."""

    unread: int | None
    """Entries it was not given yet; None where Redis cannot tell."""
    pending: int
    """Entries it was given and has not acknowledged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    entries: int
    groups: Mapping[str, Group]


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """Whether the fleet may call one upstream; `worker/admission.lua` decides it, in the same order."""

    in_flight: int
    state: str
    """`open`, `throttled`, `paused` (by an operator), or the gate that is shut, such as `quota_exhausted`."""
    code: str
    """The error code that shut the gate."""
    next_call_ms: int
    """When the pause ends or the gate is probed, from now; 0 where nothing is in the way, or an operator is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    lanes: Mapping[str, Lane]
    streams: Mapping[str, Stream]
    dead: int
    upstreams: Mapping[str, Upstream]


def read(redis: Any, lanes: Iterable[str], upstreams: Iterable[str] = ("default",)) -> Overview:
    """Raises redis.RedisError; the reads are not one transaction, so a moving message may count twice or not."""
    seconds, micros = redis.time()
    now_ms = seconds * 1000 + micros // 1000
    names = sorted({RESULT_STREAM} | {name.decode() for name in redis.smembers(_STREAMS)})
    return Overview(
        lanes={lane: _lane(redis, lane, now_ms) for lane in lanes},
        streams={name: _stream(redis, name) for name in names},
        dead=redis.xlen(DEAD_STREAM),
        upstreams={name: _upstream(redis, name, now_ms) for name in upstreams},
    )


def _lane(redis: Any, lane: str, now_ms: int) -> Lane:
    with redis.pipeline(transaction=False) as batch:
        for suffix in PRIORITIES.values():
            batch.llen(lane_queue(lane) + suffix)
        batch.hlen(f"responses:inflight:{lane}")
        batch.hlen(f"responses:parked:{lane}")
        batch.zrange(f"responses:leases:{lane}", 0, 0, withscores=True)
        batch.zrange(f"responses:delayed:{lane}", 0, 0, withscores=True)
        *ready, in_flight, parked, lease, due = batch.execute()
    return Lane(
        ready=dict(zip(PRIORITIES, ready, strict=True)),
        in_flight=in_flight,
        parked=parked,
        oldest_lease_ms=_from_now(lease, now_ms),
        next_due_ms=_from_now(due, now_ms),
    )


def _stream(redis: Any, name: str) -> Stream:
    entries = redis.xlen(name)
    groups: list[dict[str, Any]] = redis.xinfo_groups(name) if redis.exists(name) else []
    return Stream(
        entries=entries,
        groups={group["name"].decode(): Group(unread=group["lag"], pending=group["pending"]) for group in groups},
    )


def _upstream(redis: Any, name: str, now_ms: int) -> Upstream:
    fields = ("paused", "gate", "gate_code", "probe_at", "pause_until")
    paused, gate, code, probe_at, pause_until = redis.hmget(f"responses:quota:{name}", *fields)
    next_call_ms = max(0, round(float((probe_at if gate else pause_until) or 0)) - now_ms)
    return Upstream(
        in_flight=redis.zcount(f"responses:permits:{name}", now_ms, "+inf"),
        state="paused" if paused else gate.decode() if gate else "throttled" if next_call_ms else "open",
        code=code.decode() if code else "",
        next_call_ms=0 if paused else next_call_ms,
    )


def _from_now(first: list[tuple[bytes, float]], now_ms: int) -> int | None:
    return round(first[0][1]) - now_ms if first else None
