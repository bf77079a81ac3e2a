"""Rate budgets as a gateway enforces them, exact to the nanosecond and free of any clock.

Credit is counted in unit-nanoseconds per minute, all integers: a float bucket polled at a high rate drifts by
a call or so a minute, which is the very thing benchmarks against this simulator measure.
"""

import math
from dataclasses import dataclass
from typing import Final, Literal, Protocol

SECOND_NS: Final = 1_000_000_000
MINUTE_NS: Final = 60 * SECOND_NS

LimitName = Literal["requests", "tokens", "concurrency"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """So many units a minute: refilled continuously, or counted in windows where `window_s` is above 0."""

    per_minute: int
    burst_s: float = 10.0
    """Seconds of refill that a full continuous bucket holds."""
    window_s: float = 0.0
    phase_s: float = 0.0
    """When, after time 0, one of the windows begins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountLimits:
    """Everything that can refuse a call; None and 0 mean no limit."""

    requests: Limit | None = None
    tokens: Limit | None = None
    max_in_flight: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The limit that refused a call, and the time until it would admit it."""

    limit: LimitName
    retry_after_s: float
    too_large: bool = False
    """The call needs more than the limit ever holds: no wait will help."""


class Meter(Protocol):
    """The rest of one limit. Times are nanoseconds of one clock and never go back."""

    @property
    def limit(self) -> Limit: ...

    @property
    def capacity(self) -> int:
        """The most that one call can ever take; at least 1."""
        ...

    def remaining(self, now_ns: int) -> int: ...

    def wait_ns(self, amount: int, now_ns: int) -> int:
        """Seconds until `amount` fits; 0 if it fits now. Meaningless above `capacity`."""
        ...

    def reset_ns(self, now_ns: int) -> int:
        """Seconds until the limit is unused again."""
        ...

    def take(self, amount: int, now_ns: int) -> None:
        """Count `amount`, negative to refund; debt is bounded, so that a bad client recovers."""
        ...

    def relimit(self, limit: Limit, now_ns: int) -> None:
        """Go on under another limit of the same kind; what was taken stays taken."""
        ...


class Bucket:
    """A token bucket with continuous refill, full at first."""

    def __init__(self, limit: Limit, now_ns: int) -> None:
        self.limit = limit
        self._credit = self._full
        self._at_ns = now_ns

    @property
    def capacity(self) -> int:
        return self._full // MINUTE_NS

    @property
    def _full(self) -> int:
        # A burst shorter than one call's refill would otherwise never let any call through.
        return max(self.limit.per_minute * round(self.limit.burst_s * SECOND_NS), MINUTE_NS)

    def remaining(self, now_ns: int) -> int:
        return max(0, self._accrued(now_ns) // MINUTE_NS)

    def wait_ns(self, amount: int, now_ns: int) -> int:
        return self._refill_ns(amount * MINUTE_NS - self._accrued(now_ns))

    def reset_ns(self, now_ns: int) -> int:
        return self._refill_ns(self._full - self._accrued(now_ns))

    def take(self, amount: int, now_ns: int) -> None:
        self._credit = max(-self._full, self._accrued(now_ns) - amount * MINUTE_NS)

    def relimit(self, limit: Limit, now_ns: int) -> None:
        self._accrued(now_ns)
        self.limit = limit

    def _accrued(self, now_ns: int) -> int:
        refill = self.limit.per_minute * (now_ns - self._at_ns)
        self._credit = min(self._full, self._credit + refill)
        self._at_ns = now_ns
        return self._credit

    def _refill_ns(self, missing: int) -> int:
        return max(0, -(-missing // self.limit.per_minute))


class Window:
    """Fixed windows: each begins with the whole share of the minute that it covers."""

    def __init__(self, limit: Limit, now_ns: int) -> None:
        self.limit = limit
        self._used = 0
        self._ends_ns = self._next_end(now_ns)

    @property
    def capacity(self) -> int:
        return max(1, self.limit.per_minute * self._length_ns // MINUTE_NS)

    @property
    def _length_ns(self) -> int:
        return max(1, round(self.limit.window_s * SECOND_NS))

    def remaining(self, now_ns: int) -> int:
        return max(0, self.capacity - self._counted(now_ns))

    def wait_ns(self, amount: int, now_ns: int) -> int:
        fits = self._counted(now_ns) + amount <= self.capacity
        return 0 if fits else self._ends_ns - now_ns

    def reset_ns(self, now_ns: int) -> int:
        return self._ends_ns - now_ns if self._counted(now_ns) else 0

    def take(self, amount: int, now_ns: int) -> None:
        self._used = max(0, self._counted(now_ns) + amount)

    def relimit(self, limit: Limit, now_ns: int) -> None:
        self._counted(now_ns)
        self.limit = limit
        self._ends_ns = self._next_end(now_ns)

    def _counted(self, now_ns: int) -> int:
        if now_ns >= self._ends_ns:
            self._used = 0
            self._ends_ns = self._next_end(now_ns)
        return self._used

    def _next_end(self, now_ns: int) -> int:
        phase_ns = round(self.limit.phase_s * SECOND_NS)
        return ((now_ns - phase_ns) // self._length_ns + 1) * self._length_ns + phase_ns


class Budget:
    """Requests, tokens and concurrency of one gateway account, taken all together or not at all."""

    def __init__(self, limits: AccountLimits, now_ns: int) -> None:
        self.in_flight = 0
        self.requests = _meter(None, limits.requests, now_ns)
        self.tokens = _meter(None, limits.tokens, now_ns)
        self._max_in_flight = limits.max_in_flight

    def relimit(self, limits: AccountLimits, now_ns: int) -> None:
        """Go on under other limits; what was taken, and what is in flight, stays so."""
        self.requests = _meter(self.requests, limits.requests, now_ns)
        self.tokens = _meter(self.tokens, limits.tokens, now_ns)
        self._max_in_flight = limits.max_in_flight

    def admit(self, *, tokens: int, now_ns: int) -> Refused | None:
        """Take one request, `tokens` and one place in flight; or take nothing and say why.

        An admitted call must be given to `finish` exactly once.
        """
        if refused := self._refusal(tokens, now_ns):
            return refused
        self._take(1, tokens, now_ns)
        self.in_flight += 1
        return None

    def finish(self) -> None:
        """Free the place of an admitted call."""
        self.in_flight -= 1

    def refund(self, *, tokens: int, now_ns: int) -> None:
        """Return what an admitted call took, for a gateway that does not count failures."""
        self._take(-1, -tokens, now_ns)

    def count_refused(self, now_ns: int) -> None:
        """Charge a refused call as one request, as OpenAI does: hammering then keeps the limit shut."""
        self._take(1, 0, now_ns)

    def _take(self, requests: int, tokens: int, now_ns: int) -> None:
        if self.requests:
            self.requests.take(requests, now_ns)
        if self.tokens:
            self.tokens.take(tokens, now_ns)

    def _refusal(self, tokens: int, now_ns: int) -> Refused | None:
        if self.tokens and tokens > self.tokens.capacity:
            return Refused(limit="tokens", retry_after_s=math.inf, too_large=True)
        waits: dict[LimitName, int] = {
            "requests": self.requests.wait_ns(1, now_ns) if self.requests else 0,
            "tokens": self.tokens.wait_ns(tokens, now_ns) if self.tokens else 0,
            # When a place frees is unknown; a second is what gateways answer.
            "concurrency": SECOND_NS if 0 < self._max_in_flight <= self.in_flight else 0,
        }
        longest = max(waits, key=lambda name: waits[name])
        if not waits[longest]:
            return None
        return Refused(limit=longest, retry_after_s=waits[longest] / SECOND_NS)


def _meter(current: Meter | None, limit: Limit | None, now_ns: int) -> Meter | None:
    if limit is None:
        return None
    kind = Window if limit.window_s > 0 else Bucket
    if not isinstance(current, kind):
        return kind(limit, now_ns)
    if current.limit != limit:
        current.relimit(limit, now_ns)
    return current
