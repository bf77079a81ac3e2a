"""The place of everything at one moment: read-only, a handful of O(1) reads per lane and stream."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from redis.exceptions import NoPermissionError

from api_contracts.queues import DEAD_STREAM, PRIORITIES, RESULT_STREAM, STREAMS, lane_lists
from worker.operations.stray_messages import StraySearch
from worker.queue.messages import Unreadable, decode
from worker.storage import keys

STRAY_CALLS: Final = 200
"""Of a thousand keys each: under a second."""

UNKNOWN_RPM: Final = 60
"""The factor of the learned scale where no limit is known: one request a second (`admission/lua/state.lua`)."""


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
    oldest_age_ms: int | None
    """Since the request that is next in line was enqueued; None where there is none, or its producer did not say."""

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
class Budget:
    """Requests or tokens of one upstream, a minute."""

    limit: int
    """In force; 0 = unknown."""
    overridden: bool = False
    """Whether an operator set the limit; else the workers' settings did."""
    rate: float
    """Calls that the fleet may start now: learned, at most the limit; 0 where these are not counted."""
    used: int
    """Granted in the last minute: this minute so far, and of the one before as much as is not a minute ago."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """An operator's pause."""

    by: str
    reason: str
    ends_ms: int | None
    """From now; None where it lasts until `resume`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """Whether the fleet may call one upstream; `worker/admission/lua/admit.lua` decides it, in the same order."""

    in_flight: int
    in_flight_limit: int
    """0 = none."""
    in_flight_overridden: bool = False
    """As `Budget.overridden`."""
    waiting: int
    """Requests that workers hold and may not call for yet."""
    requests: Budget
    tokens: Budget
    state: str
    """`open`, `throttled`, `paused` (by an operator), or the gate that is shut, such as `quota_exhausted`."""
    code: str
    """The error code that shut the gate."""
    next_call_ms: int
    """When the pause ends or the gate is probed, from now; 0 where nothing is in the way, or an operator is."""
    since_ms: int | None
    """The time for which the gate is shut or the fleet paused; None where it is neither."""
    pause: "Pause | None"
    waits_for: str
    """The want of the last request that had to wait: requests, tokens, concurrency, share; empty if none had to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    lanes: Mapping[str, Lane]
    streams: Mapping[str, Stream]
    dead: int
    failed: int
    """Requests that ended in a retryable failure, and are kept for `redrive`."""
    upstreams: Mapping[str, Upstream]
    strays: Mapping[str, int]
    """Keys that hold messages and that no worker serves -> how many; of the first STRAY_CALLS thousand keys."""


def read(
    redis: Any, lanes: Iterable[str], upstreams: Iterable[str] = ("default",), *, at_ms: int | None = None
) -> Overview:
    """The whole picture, with ages as of `at_ms`, by default the server's time now.

    Raises redis.RedisError; the reads are not one transaction, so a moving message may count twice or not.
    """
    lanes = list(lanes)
    return read_parts(redis, lanes, upstreams, _strays(redis, lanes), server_ms(redis) if at_ms is None else at_ms)


def read_parts(
    redis: Any, lanes: Iterable[str], upstreams: Iterable[str], strays: Mapping[str, int], now_ms: int
) -> Overview:
    """The same for callers that have looked for `strays` already."""
    names = sorted({RESULT_STREAM} | {_text(name) for name in redis.smembers(STREAMS)})
    read_lanes = {lane: _lane(redis, lane, now_ms) for lane in lanes}
    held = sum(lane.in_flight for lane in read_lanes.values())
    return Overview(
        lanes=read_lanes,
        streams={name: _stream(redis, name) for name in names},
        dead=redis.xlen(DEAD_STREAM),
        failed=redis.xlen(keys.FAILED_STREAM),
        upstreams={name: _upstream(redis, name, now_ms, held) for name in upstreams},
        strays=strays,
    )


def _strays(redis: Any, lanes: Iterable[str]) -> Mapping[str, int]:
    with suppress(NoPermissionError):  # users of the release before may not look through keys
        return StraySearch(list(lanes)).look(redis, STRAY_CALLS)
    return {}


def _lane(redis: Any, lane: str, now_ms: int) -> Lane:
    lists, names = lane_lists(lane), keys.lane(lane)
    with redis.pipeline(transaction=False) as batch:
        for name in lists:
            batch.llen(name)
        batch.hlen(names["inflight"])
        batch.hlen(names["parked"])
        batch.zrange(names["leases"], 0, 0, withscores=True)
        batch.zrange(names["delayed"], 0, 0, withscores=True)
        for name in lists:
            batch.lindex(name, -1)
        replies = batch.execute()
    (*ready, in_flight, parked, lease, due), heads = replies[: -len(lists)], replies[-len(lists) :]
    ages = [age for head in heads if head and (age := _age_ms(head, now_ms)) is not None]
    return Lane(
        ready=dict(zip(PRIORITIES, ready, strict=True)),
        in_flight=in_flight,
        parked=parked,
        oldest_lease_ms=_from_now(lease, now_ms),
        next_due_ms=_from_now(due, now_ms),
        oldest_age_ms=max(ages, default=None),
    )


def _age_ms(raw: bytes, now_ms: int) -> int | None:
    message = decode(raw, max_body=len(raw))
    terms = None if isinstance(message, Unreadable) else message.terms
    enqueued_at = terms.enqueued_at if terms else None
    return max(0, now_ms - round(enqueued_at.timestamp() * 1000)) if enqueued_at else None


def _stream(redis: Any, name: str) -> Stream:
    entries = redis.xlen(name)
    groups: list[dict[str, Any]] = redis.xinfo_groups(name) if redis.exists(name) else []
    return Stream(
        entries=entries,
        groups={_text(group["name"]): Group(unread=group["lag"], pending=group["pending"]) for group in groups},
    )


_FIELDS: Final = (
    "paused paused_by paused_why paused_until gate gate_since gate_code probe_at pause_until waits_for scale rpm tpm "
    "limit_rpm limit_tpm limit_in_flight in_flight_allowed minute requests_now requests_before tokens_now tokens_before"
)
_QUOTA: Final = tuple(_FIELDS.split())
"""Fields of the hash `quota`; `worker/admission/lua/state.lua` lists all of them."""


def _upstream(redis: Any, name: str, now_ms: int, held: int) -> Upstream:
    values: list[bytes | None] = redis.hmget(keys.upstream(name)["quota"], *_QUOTA)
    quota = {field: _text(value or b"") for field, value in zip(_QUOTA, values, strict=True)}
    in_flight = redis.zcount(keys.upstream(name)["permits"], now_ms, "+inf")
    rpm, tpm = _number(quota["rpm"]), _number(quota["tpm"])
    if quota["paused_until"] and now_ms >= _number(quota["paused_until"]):
        quota["paused"] = ""  # it is over; the next request to ask clears it away
    scale, nominal = _number(quota["scale"]), rpm or (0 if tpm else UNKNOWN_RPM)
    next_call_ms = max(0, round(_number(quota["probe_at" if quota["gate"] else "pause_until"])) - now_ms)
    return Upstream(
        in_flight=in_flight,
        in_flight_limit=int(_number(quota["in_flight_allowed"])),
        in_flight_overridden=bool(quota["limit_in_flight"]),
        waiting=max(0, held - in_flight),
        requests=_budget(quota, "requests", int(rpm), scale * nominal, now_ms),
        tokens=_budget(quota, "tokens", int(tpm), scale * tpm, now_ms),
        state="paused" if quota["paused"] else quota["gate"] or ("throttled" if next_call_ms else "open"),
        code=quota["gate_code"],
        next_call_ms=0 if quota["paused"] else next_call_ms,
        since_ms=_ago(quota["paused"] or quota["gate_since"], now_ms),
        pause=_pause(quota, now_ms) if quota["paused"] else None,
        waits_for=quota["waits_for"],
    )


def _budget(quota: Mapping[str, str], name: str, limit: int, rate: float, now_ms: int) -> Budget:
    overridden = bool(quota["limit_rpm" if name == "requests" else "limit_tpm"])
    return Budget(limit=limit, overridden=overridden, rate=round(rate, 1), used=_used(quota, name, now_ms))


def _pause(quota: Mapping[str, str], now_ms: int) -> Pause:
    until = quota["paused_until"]
    ends_ms = max(0, round(_number(until)) - now_ms) if until else None
    return Pause(by=quota["paused_by"], reason=quota["paused_why"], ends_ms=ends_ms)


def _ago(at: str, now_ms: int) -> int | None:
    return max(0, now_ms - round(_number(at))) if at else None


def _used(quota: Mapping[str, str], budget: str, now_ms: int) -> int:
    minute, passed = divmod(now_ms / 60_000, 1)
    age = minute - _number(quota["minute"])
    now, before = _number(quota[f"{budget}_now"]), _number(quota[f"{budget}_before"])
    if age > 1:
        return 0
    return round(now + (1 - passed) * before if age < 1 else (1 - passed) * now)


def _text(name: bytes) -> str:
    """A name that anybody may have chosen: bytes that are no UTF-8 are shown as hex escapes."""
    return name.decode("utf-8", "backslashreplace")


def _number(text: str) -> float:
    return float(text or 0)


def server_ms(redis: Any) -> int:
    seconds, micros = redis.time()
    return seconds * 1000 + micros // 1000


def _from_now(first: list[tuple[bytes, float]], now_ms: int) -> int | None:
    return round(first[0][1]) - now_ms if first else None
