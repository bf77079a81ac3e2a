"""The commands of the ledger's scripts, as `ledger.lua`, `deliveries.lua` and `returns.lua` implement them.

Two scripts, because reading one costs Redis more than most commands in it. All of them may write even when Redis is
full. Messages must be taken, answers must land and leases must move, or a full Redis could never drain. What each
writes beside the message it moves is small. Only a producer's `LPUSH` is refused then.
"""

from typing import Final, NamedTuple

from worker.queue import oversize, usage
from worker.queue.claims import Delivery, Pop, Reclaim, Reclaimed, WriteOutcome
from worker.queue.deltas import ENDED_KEPT_MS, LONGEST
from worker.storage.commands import Command, Rows, Script
from worker.storage.keys import FAILED, LISTS, PREFIXES
from worker.storage.parts import Part
from worker.storage.replies import flags, number, record, records, text

MARKER_MS: Final = 3_600_000
"""The time after its deadline for which a request is remembered, to know duplicates, where no setting says another."""

HELD: Final = ("inflight", "leases", "claims")


class Popped(NamedTuple):
    """One message that a pop took."""

    token: str
    lane: str
    message: bytes


class Claimed(NamedTuple):
    """A claim's answer where the request is ours to answer. Times are server time in ms."""

    status: str
    now_ms: int
    enqueued_at_ms: int
    enqueued_at_source: str
    deadline_ms: int
    claimed_at_ms: int
    failures: int
    own: int
    crashes: int
    throttle_ms: int
    group: int
    alone: int
    begun: int
    attempts: tuple[bytes, ...]


class Lost(NamedTuple):
    """One delivery that a reclaim ended; `given` is its new token where the caller has to answer it."""

    lane: str
    token: str
    request_key: str
    attempt: int
    crashes: int
    given: str
    message: bytes


class Refused(NamedTuple):
    """A claim's answer where this delivery may not run its request."""

    status: str
    now_ms: int


_claimed, _refused, _lost, _popped = record(Claimed), record(Refused), records(Lost, after=1), records(Popped, after=1)


def _pop_reply(reply: list[bytes]) -> Pop:
    return Pop([Delivery(*one) for one in _popped(reply)], frozenset(reply[0].decode().split()))


def _claim_reply(reply: list[bytes]) -> Claimed | Refused:
    return _refused(reply) if len(reply) == len(Refused._fields) else _claimed(reply)


def _reclaim_reply(reply: list[bytes]) -> Reclaim:
    lost = [
        Reclaimed(*lost[:5], handed=Delivery(lost.given, lost.lane, lost.message, lost=True) if lost.given else None)
        for lost in _lost(reply)
    ]
    return Reclaim(lost, frozenset(reply[0].decode().split()))


def outcome(reply: bytes) -> WriteOutcome:
    return WriteOutcome(reply.decode())


POP: Final = Command(
    name="pop",
    args={"lease_ms": int, "pop_id": str, "total": int, "bytes": int, "largest": int},
    rows=Rows("lanes", ("inflight", "leases", *LISTS), {"lane": str, "quota": int, "limit": int}),
    reply=_pop_reply,
    even_when_full=True,
    large_reply=True,
)
CLAIM: Final = Command(
    name="claim",
    keys=(*HELD, "request", "cancel", "cancel_task", "deltas", "results", "streams", "dead", "permits"),
    args={
        "lane": str,
        "token": str,
        "tenant": str,
        "request_id": str,
        "fingerprint": str,
        "enqueued_at": int | None,
        "deadline": int | None,
        "default_deadline_ms": int,
        "longest_deadline_ms": int,
        "republish": bool,
        "begins": bool,
    },
    reply=_claim_reply,
    even_when_full=True,
)
BEGIN: Final = Command(
    name="begin",
    keys=(*HELD, "request", *LISTS),
    args={"token": str, "number": int, "attempt": bytes, "previous_number": int | None, "previous": bytes},
    reply=outcome,
    even_when_full=True,
)
COMPLETE: Final = Command(
    name="complete",
    keys=(*HELD, "request", "cancel", "results", "streams", "kept", "dead", "permits", "usage", *LISTS),
    optional=("deltas",),
    args={
        "lane": str,
        "token": str,
        "tenant": str,
        "request_id": str,
        "outcome": str,
        "retryable": bool,
        "result": bytes,
        "kept_ms": int,
        "window_ms": int | None,
        "dead_reason": str,
        "failed_code": str,
        "failed_kept_ms": int,
        "model": bytes,
        "counts": str,
    },
    reply=outcome,
    even_when_full=True,
)
ANSWER: Final = Command(
    name="answer",
    keys=(*HELD, "results", "streams", "dead", "usage"),
    args={
        "lane": str,
        "token": str,
        "tenant": str,
        "request_id": str,
        "result": bytes,
        "dead_reason": str,
        "model": bytes,
        "counts": str,
    },
    reply=outcome,
    even_when_full=True,
)
BURY: Final = Command(
    name="bury",
    keys=(*HELD, "dead"),
    args={"lane": str, "token": str, "reason": str},
    reply=outcome,
    even_when_full=True,
)
PARK: Final = Command(
    name="park",
    keys=(*HELD, "parked", "delayed", "request", "task", "permits", *LISTS),
    args={
        "token": str,
        "delay_ms": int,
        "failures": int,
        "own": int,
        "throttle_ms": int,
        "number": int | None,
        "attempt": bytes,
    },
    reply=outcome,
    even_when_full=True,
)
PROMOTE: Final = Command(
    name="promote",
    args={"limit": int},
    rows=Rows("lanes", ("parked", "delayed", "claims", *LISTS)),
    reply=number,
    even_when_full=True,
)
RELEASE: Final = Command(
    name="release",
    keys=(*HELD, "permits", *LISTS),
    optional=("request",),
    args={"token": str, "behind": bool, "throttle_ms": int, "number": int | None, "attempt": bytes},
    reply=outcome,
    even_when_full=True,
)
RENEW: Final = Command(
    name="renew",
    keys=(*HELD, "permits"),
    args={"lease_ms": int},
    rows=Rows("held", args={"token": str}),
    reply=lambda lost: {token.decode() for token in lost},
    even_when_full=True,
)
RECLAIM: Final = Command(
    name="reclaim",
    keys=("reclaimer", "dead"),
    args={"lease_ms": int, "limit": int, "pop_id": str},
    rows=Rows("lanes", (*HELD, "parked", "delayed", *LISTS), {"lane": str}),
    reply=_reclaim_reply,
    even_when_full=True,
)
CANCEL: Final = Command(
    name="cancel",
    keys=("cancel", "request"),
    optional=("task",),
    args={"ttl_ms": int},
    reply=text,
    even_when_full=True,
)
CANCELLED: Final = Command(name="cancelled", rows=Rows("marks", ("cancel",)), reply=flags, even_when_full=True)
FORGET: Final = Command(name="forget", keys=("kept",), args={"limit": int}, reply=number, even_when_full=True)
SERVE: Final = Command(
    name="serve",
    keys=("lanes",),
    rows=Rows("served", args={"lane": str}),
    reply=lambda lanes: [lane.decode() for lane in lanes],
    even_when_full=True,
)

_ENDS: Final = (COMPLETE, ANSWER, BURY)

DELIVERIES: Final = Script.load(
    "queue/lua/ledger.lua",
    Part((POP,), ("queue/lua/pop.lua",)),
    Part(
        (CLAIM, BEGIN, *_ENDS),
        (
            "queue/lua/failed_bodies.lua",
            Part((CLAIM, BEGIN), ("queue/lua/deliveries.lua",)),
            Part(_ENDS, ("queue/lua/usage.lua", "queue/lua/endings.lua")),
        ),
    ),
    commands=(POP, CLAIM, BEGIN, *_ENDS),
    MARKER_MS=MARKER_MS,
    DELTAS_COUNT=LONGEST,
    DELTAS_KEPT_MS=ENDED_KEPT_MS,
    USAGE_DAYS=usage.DAYS_KEPT,
    USAGE_ROWS=usage.ROWS,
    USAGE_OTHERS=usage.OTHERS,
    CUT_KEPT_WHOLE=oversize.KEPT_WHOLE,
    CUT_MARK=oversize.MARK,
    CUT_EDGE=oversize.EDGE,
    **FAILED,
    **PREFIXES,
)
RETURNS: Final = Script.load(
    "queue/lua/ledger.lua",
    "queue/lua/returns.lua",
    "queue/lua/reclaim.lua",
    commands=(PARK, PROMOTE, RELEASE, RENEW, RECLAIM, CANCEL, CANCELLED, FORGET, SERVE),
    MARKER_MS=MARKER_MS,
    **PREFIXES,
)
