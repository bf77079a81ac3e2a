"""The fleet's memory of one upstream's pace: what one Redis hash holds of it."""

from dataclasses import dataclass, field

from oracles.controller.lanes import Lane
from oracles.controller.slow_start import SlowStart

BACKOFF_MS = 100
REFUSAL_MS = 200  # first guess of the time the upstream takes to refuse


@dataclass(slots=True)
class State:
    """All that the fleet remembers about one upstream."""

    at_ms: float  # last refill
    scale: float
    ceiling: float  # the scale at which the last refusal put the upstream's limit; 0 before any
    hold_ms: float  # busy time to stay at or below it
    burst_ms: float
    requests_ms: float  # level of each bucket
    tokens_ms: float
    refund: float = 0.0  # believed share of unused reservations that the upstream gives back
    hint: float = 0.0  # the scale that headers name
    busy_ms: float = 0.0  # since the last cut: time in which budget was what held calls back
    passed_ms: float = 0.0  # since the last cut: nominal ms granted
    cut_at_ms: float = 0.0  # 0: never refused
    pause_until_ms: float = 0.0
    probing: bool = False  # the next call goes alone
    backoff_ms: float = BACKOFF_MS
    refusal_ms: float = REFUSAL_MS  # time the upstream takes to refuse
    lenience: float = 0.0  # refusals that would be forgiven now
    virtual_ms: float = 0.0  # at which the last grant was made
    lanes: dict[str, Lane] = field(default_factory=dict)
    slow: SlowStart = field(default_factory=SlowStart)
