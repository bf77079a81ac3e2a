"""Questions to admission and its answers: values without behaviour."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Literal

Gate = Literal["", "authentication_failed", "quota_exhausted", "breaker_open"]
"""A state of the upstream in which only probes are called."""


AHEAD_S: Final = 1.0
"""Seconds of the fleet's rate that one process takes from a lane in advance."""

Word = Literal["go", "wait", "late", "later"]
"""Start the call; ask again; answer the request early, for its time is too short; come back when retries are few."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The gateway's limits, as far as known; 0 = unknown."""

    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    max_in_flight: int = 0
    burst_s: float = 2.0

    @property
    def names_a_rate(self) -> bool:
        return bool(self.requests_per_minute or self.tokens_per_minute)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """The facts that admission needs of one request that wants to call. Times in ms of server time."""

    token: str
    tokens: int
    """To set aside for the call."""
    tenant: str
    body: str
    """The fingerprint of the request's body."""
    call_kind: str
    """Model and size, as far as they decide how long a call takes: `tokens.call_kind`."""
    enqueued_at_ms: int
    ends_ms: int
    """The deadline."""
    patience_ms: float = math.inf
    """The longest wait of the request for an upstream that is out of order."""
    failures: int = 0
    """Earlier calls that failed."""
    own: int = 0
    """Earlier calls that were refused at no cost and for the request's own sake."""
    refusals: int = 0
    """All earlier calls that were refused at no cost."""
    model: str = ""
    tried: Mapping[str, int] = field(default_factory=dict[str, int])
    """Earlier calls that failed or were refused, by route."""
    moving: bool = False
    """Whether it goes on from a failure at once, by a route that it has not tried, or else comes back later."""
    keeps: str = ""
    """The name of what it shares with the requests whose route it keeps to; empty if it keeps to none."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """The right to make one call now; `tokens` were set aside for it. Times in ms of server time."""

    token: str
    tokens: int
    waited_ms: int
    granted_at_ms: int
    gate: Gate = ""
    """Set on a probe: the gate that this call tries."""
    seq: int = 0
    """The number of first calls that the fleet had started by then."""
    asked: Ask | None = None
    route: str = "default"
    seqs: tuple[int, ...] = ()
    """The same number for each state of the route, where there are several routes."""


class Reason(StrEnum):
    """The reason that a request was not admitted."""

    TIME = "time"
    """Its deadline came while it waited for the budget."""
    NEVER = "never"
    """Its tokens exceed a whole minute's budget."""
    GATE = "gate"
    """The upstream is out of order, for longer than the request may wait for that."""
    LATE = "late"
    """Its call could not end before its deadline."""
    LATER = "later"
    """It should come back: it was called before, and retries are more than their share of the fleet's calls; or its
    tenant is on probation."""


@dataclass(frozen=True, slots=True)
class NotAdmitted:
    reason: Reason
    waited_ms: int
    code: str = ""
    """With Reason.GATE: the error code of the upstream's state."""
    needed_ms: int = 0
    """With Reason.LATE: the time that calls like it take. With Reason.LATER: the least time to stay away."""
    left_ms: int = 0
    """With Reason.LATE: the time left to it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The script's answer to one request."""

    word: Word
    number: int = 0
    """With go: how many first calls the fleet has started. With late: the time the call needs, in ms. With later: the
    least time to stay away, in ms."""
    route: str = "default"
    gate: Gate = ""
    """With go: the gate that the call tries; empty where it is no probe."""
    seqs: tuple[int, ...] = ()
    """With go: the same number for each state of the route, where there are several routes."""


@dataclass(frozen=True, slots=True)
class Outage:
    """An upstream, or every route for a model, known to be out of order since then; 0 = it is not."""

    code: str = ""
    confirmed_at_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """One round: an answer to each request, in the order asked, and the state of the upstream."""

    answers: tuple[Answer, ...]
    wait_ms: int
    """Until those who wait should ask again."""
    reason: str
    """The reason that the first of them waits."""
    code: str
    confirmed_at_ms: int
    """Time at which the shut gate was confirmed; 0 = it was not."""
    probe: bool
    now_ms: int
    per_second: float
    limits: Limits
    """In force for the whole fleet: what operators set at run time, else this process' settings; and what was learned
    of calls in flight."""
    outages: Mapping[str, Outage] | None = None
    """By model, where there are several routes; else one outage is everybody's."""

    def outage(self, model: str) -> Outage:
        """The reason for which requests for this model may lose patience."""
        if self.outages is None:
            return Outage(self.code, self.confirmed_at_ms)
        return self.outages.get(model, Outage())

    @property
    def granted(self) -> int:
        return sum(answer.word == "go" for answer in self.answers)

    @property
    def waits(self) -> bool:
        return any(answer.word == "wait" for answer in self.answers)
