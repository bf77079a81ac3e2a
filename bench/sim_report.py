"""The work of simulated fleets, and its outcome."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Work:
    """Requests of one lane: their reserved tokens, and when they are enqueued."""

    weight: float
    tokens: list[int]
    at_ms: list[float]


@dataclass(slots=True)
class Call:
    """One request on its way."""

    process: int
    lane: str
    tokens: int
    since_ms: float
    granted_at_ms: float
    number: int


@dataclass(slots=True)
class Report:
    """The upstream's and the callers' view."""

    total: int = 0
    done: int = 0
    calls: int = 0
    refused: int = 0
    first_ms: float = -1.0
    last_ms: float = 0.0
    served_in_30s: int = 0
    fastest_rest_s: float = 0.0  # least time for what was left after 30 s
    polls: int = 0
    grants_ms: list[float] = field(default_factory=list)
    told_to_pause_ms: float = -1.0
    waits_ms: dict[str, list[float]] = field(default_factory=dict)

    @property
    def lost(self) -> int:
        return self.total - self.done

    @property
    def span_s(self) -> float:
        """The upstream's first to last call."""
        return (self.last_ms - self.first_ms) / 1_000

    @property
    def refused_percent(self) -> float:
        """Share of 429s among all calls."""
        return 100 * self.refused / max(1, self.calls)
