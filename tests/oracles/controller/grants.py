"""Questions to admission and its answers, and the words for the end of a call."""

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["ok", "throttled", "overloaded", "failed", "authentication", "quota", "cut short", "unsent"]
Scope = Literal["account", "unknown", "request"]
Answer = Literal["go", "wait", "late", "later"]  # start; ask again; answer early; park until the retry budget allows


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that would start now."""

    token: str
    body: str  # fingerprint
    tenant: str
    kind: str = ""  # model and size, as far as they decide how long a call takes
    tokens: int = 0
    time_left_ms: float = float("inf")
    whole_ms: float = float("inf")  # from enqueueing to the deadline
    failures: int = 0  # calls of it that failed or that it alone was refused


@dataclass(frozen=True, slots=True)
class Reservation:
    """The right to make one call."""

    asked: Asked
    granted_at_ms: float
    seq: int
    probe: bool = False
