"""What admission is asked and what it answers: values without behaviour."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

Gate = Literal["", "authentication_failed", "quota_exhausted", "breaker_open"]
"""A state of the upstream in which only probes are called."""


UpstreamVerdict = Literal["ok", "failed", ""]
"""What a call says of the upstream's health; nothing where it only says something of the request."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the gateway allows, as far as known; 0 = unknown."""

    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    max_in_flight: int = 0
    burst_s: float = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What admission must know of one request that wants to call. Times are server time in ms."""

    token: str
    tokens: int
    tenant: str
    body: str
    call_kind: str
    enqueued_at_ms: int
    ends_ms: int
    patience_ms: float
    failures: int = 0
    own: int = 0
    refusals: int = 0


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
    asked: Ask | None = None


class Reason(StrEnum):
    """Why a request was not admitted."""

    TIME = "time"
    """Its deadline came while it waited for the budget."""
    NEVER = "never"
    """Its tokens exceed a whole minute's budget."""
    GATE = "gate"
    """The upstream is out of order, for longer than the request may wait for that."""
    LATE = "late"
    """It cannot finish before its deadline."""
    LATER = "later"
    """The fleet's retry budget is spent."""


@dataclass(frozen=True, slots=True)
class NotAdmitted:
    reason: Reason
    waited_ms: int
    code: str = ""
    """With Reason.GATE: the error code of the upstream's state."""
    needed_ms: int = 0
    left_ms: int = 0


@dataclass(frozen=True, slots=True)
class Grant:
    """One answer of the script: how many may start, and why not more."""

    granted: int
    wait_ms: int
    reason: str
    code: str
    probe: bool
    now_ms: int
    per_second: float
    limits: Limits
    """In force for the whole fleet: what operators set at run time, else this process' settings."""
