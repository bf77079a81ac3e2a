"""The questions to the ledger and its answers, as values without behaviour."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, NamedTuple, Self

from worker.queue.usage import NOTHING, Used
from worker.storage import keys
from worker.storage.keys import Keys


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message taken from a lane, held under a lease by its token."""

    token: str
    lane: str
    message: bytes = field(repr=False)
    lost: bool = False
    """Whether so many deliveries before it were lost unclaimed that this one is answered without being decoded."""


class Pop(NamedTuple):
    """The messages that one pop took, and the lanes that it left empty; of the others it does not know."""

    deliveries: list[Delivery]
    empty: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The facts of a request by which the ledger decides whether this delivery may run it. Times in ms."""

    tenant: str
    request_id: str
    task_id: str
    fingerprint: str
    enqueued_at_ms: int | None
    deadline_ms: int | None
    default_deadline_ms: int
    longest_deadline_ms: int
    stream: str
    republish: bool = True
    """Whether a kept result may go to a second stream."""

    @classmethod
    def bare(cls, tenant: str, request_id: str, task_id: str, stream: str) -> Self:
        """The facts that an answer needs of a request that was never claimed."""
        return cls(
            tenant=tenant,
            request_id=request_id,
            task_id=task_id,
            fingerprint="",
            enqueued_at_ms=None,
            deadline_ms=None,
            default_deadline_ms=0,
            longest_deadline_ms=0,
            stream=stream,
        )

    def expected(self, now_ms: int) -> tuple[int, int]:
        """The times of enqueueing and of the deadline that the ledger will state at this time for a new request."""
        given, reach_ms = self.enqueued_at_ms, self.longest_deadline_ms
        enqueued_at_ms = given if given is not None and abs(given - now_ms) <= reach_ms else now_ms
        deadline_ms = enqueued_at_ms + self.default_deadline_ms if self.deadline_ms is None else self.deadline_ms
        return enqueued_at_ms, max(now_ms - reach_ms, min(deadline_ms, now_ms + reach_ms))

    @property
    def facts(self) -> Mapping[str, Any]:
        """The arguments of the script that decides."""
        return {
            "tenant": self.tenant,
            "request_id": self.request_id,
            "fingerprint": self.fingerprint,
            "enqueued_at": self.enqueued_at_ms,
            "deadline": self.deadline_ms,
            "default_deadline_ms": self.default_deadline_ms,
            "longest_deadline_ms": self.longest_deadline_ms,
            "republish": self.republish,
        }

    @property
    def keys(self) -> Keys:
        """The request's keys in Redis, by the short names that commands declare."""
        names = keys.request(self.tenant, self.request_id)
        return names | keys.task(self.task_id) | {"results": self.stream}


class Standing(StrEnum):
    """The standing of a claimed request: all but RUNNABLE must be answered without a call."""

    RUNNABLE = "LEASE"
    CANCELLED = "CANCELLED"
    EXPIRED = "EXPIRED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The request is ours to answer. Times are server time in ms; `attempts` are encoded `AttemptRecord`s.

    `failures` are the attempts spent so far, `own` the refusals that no other request shared.
    """

    delivery: Delivery
    claim: Claim
    standing: Standing
    now_ms: int
    enqueued_at_ms: int
    enqueued_at_source: Literal["caller", "worker"]
    deadline_ms: int
    claimed_at_ms: int
    failures: int
    own: int
    crashes: int
    throttle_ms: int
    attempts: tuple[bytes, ...]
    group: int = 1
    """The number of deliveries with as many crashes, or more, that fell when this request last did."""
    alone: bool = True
    """Whether nothing else fell when this request last did."""
    begun: bool = False
    """Whether the first attempt is recorded: its call may follow at once."""

    @property
    def new(self) -> bool:
        """Whether no delivery before this one held the request."""
        return not (self.attempts or self.failures or self.own or self.crashes)


class Refusal(StrEnum):
    """The reason that a delivery may not run its request."""

    DUPLICATE = "DUPLICATE"
    """Already answered; the delivery is gone."""
    REPUBLISHED = "REPUBLISHED"
    """Already answered; the kept result went to this delivery's stream as well."""
    BUSY = "BUSY"
    """Another delivery of this id is under way, and its result goes to this one's stream as well; this one is gone."""
    SUPERSEDED = "SUPERSEDED"
    """The lease was lost; somebody else has the message."""
    CONFLICT = "CONFLICT"
    """The id belongs to another body; this delivery still needs its answer."""
    WITHHELD = "WITHHELD"
    """Already answered on another stream, and results go to one stream only; still needs its answer."""
    GONE = "GONE"
    """Already answered elsewhere, and the result is no longer kept; still needs its answer."""
    CROWDED = "CROWDED"
    """Under way, and so many streams wait for its result that no more may; still needs its answer."""
    DEAD_LETTERED = "DEAD_LETTERED"
    """Its request's or its results' key is no hash or no stream; the delivery is gone, the message is kept."""


class WriteOutcome(StrEnum):
    """The effect of a write."""

    OK = "OK"
    SUPERSEDED = "SUPERSEDED"
    DUPLICATE = "DUPLICATE"


class Reclaimed(NamedTuple):
    """A delivery whose worker fell silent; `attempt` is the number of the call it died in, or 0.

    `handed` is its new delivery where the caller has to answer it.
    """

    lane: str
    token: str
    request_key: str
    attempt: int
    crashes: int
    handed: Delivery | None = None


class Reclaim(NamedTuple):
    """The deliveries that one reclaim ended, and the lanes in which nothing is in flight."""

    lost: list[Reclaimed]
    idle: frozenset[str]


class Backlog(NamedTuple):
    """One result stream: how many entries somebody may still need, and the consumer group furthest behind, if any."""

    stream: str
    unread: int
    laggard: str


@dataclass(frozen=True, slots=True)
class Published:
    """A result, encoded, and what the ledger keeps of it."""

    outcome: Literal["completed", "incomplete", "failed"]
    retryable: bool
    streamed: bool
    """Whether somebody may be watching the deltas; then they are told that it is over."""
    result: bytes = field(repr=False)
    failed_code: str = ""
    """Of a retryable failure: its message is kept for a while, so that an operator can run it anew."""
    used: Used = NOTHING

    @property
    def told(self) -> Mapping[str, Any]:
        """The arguments by which scripts publish it and add it to the accounts."""
        counts = self.used.counts(failed=self.outcome == "failed")
        return {"result": self.result, "model": self.used.row, "counts": counts}
