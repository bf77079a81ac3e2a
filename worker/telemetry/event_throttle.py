"""Per fingerprint, sends the first event at once, then one summary per window.

A capture by Sentry's SDK costs a hundred times a count: 2,000 failures through its defaults hold the loop for 885 ms
and deliver 85 random events. `before_send` and sampling come after the expensive work, so the throttle comes first.

    first of a series    sent at once
    the rest             counted; sent after 60 s, then after 2, 4, 8 and every 15 minutes while the series lasts
    60 s of silence      ends the series: its rest is sent, and the next failure starts a new series

So each fingerprint has at most two events a minute, and the counts of its events add up to the number of failures.
"""

import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

Sample = TypeVar("Sample")

WINDOW_S: Final = 60.0
LONGEST_WINDOW_S: Final = 900.0
_MOST_SERIES: Final = 256
_MOST_TENANTS: Final = 1000

Fingerprint = tuple[str, ...]
OVERFLOW: Final[Fingerprint] = ("overflow",)
"""The fingerprint of all failures above the limit of series."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Impact:
    """The failures that one event stands for: all since the event before it."""

    failures: int
    total: int
    """Since the series began."""
    since_s: float
    """The begin of the series, by the clock given to the throttle."""
    window_s: float
    tenants: tuple[str, ...]
    """At most 1,000, the most affected first."""
    lanes: tuple[str, ...]


@dataclass(slots=True)
class _Series(Generic[Sample]):
    began_s: float
    told_s: float
    last_s: float
    sample: Sample
    window_s: float = WINDOW_S
    total: int = 0
    held: int = 0
    tenants: Counter[str] = field(default_factory=Counter[str])
    lanes: Counter[str] = field(default_factory=Counter[str])

    def note(self, sample: Sample, now_s: float, tenant: str, lane: str) -> None:
        self.sample, self.last_s = sample, now_s
        self.total += 1
        self.held += 1
        self.lanes[lane] += 1
        if tenant in self.tenants or len(self.tenants) < _MOST_TENANTS:
            self.tenants[tenant] += 1

    def is_due(self, now_s: float) -> bool:
        return self.held > 0 and (now_s - self.told_s >= self.window_s or self.is_over(now_s))

    def is_over(self, now_s: float) -> bool:
        return now_s - self.last_s >= WINDOW_S and now_s - self.told_s >= WINDOW_S

    def tell(self, now_s: float) -> Impact:
        impact = Impact(
            failures=self.held,
            total=self.total,
            since_s=self.began_s,
            window_s=now_s - self.told_s,
            tenants=tuple(tenant for tenant, _ in self.tenants.most_common()),
            lanes=tuple(lane for lane, _ in self.lanes.most_common()),
        )
        self.window_s = min(LONGEST_WINDOW_S, self.window_s * 2) if self.total > self.held else WINDOW_S
        self.told_s, self.held = now_s, 0
        self.tenants.clear()
        self.lanes.clear()
        return impact


@dataclass(slots=True)
class EventThrottle(Generic[Sample]):
    """One per process. Every method takes the time, in seconds of one clock, and may be called from any thread."""

    _series: dict[Fingerprint, _Series[Sample]] = field(default_factory=dict[Fingerprint, "_Series[Sample]"])
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, fingerprint: Fingerprint, sample: Sample, now_s: float, *, tenant: str, lane: str) -> Impact | None:
        """Counts one failure. Returns an Impact if an event must be sent now."""
        with self._lock:
            series, is_first = self._of(fingerprint, sample, now_s)
            series.note(sample, now_s, tenant, lane)
            return series.tell(now_s) if is_first else None

    def begin(self, fingerprint: Fingerprint, sample: Sample, now_s: float) -> Impact | None:
        """Opens a series for a condition without a failed request. Returns an Impact if an event must be sent now."""
        with self._lock:
            series, is_first = self._of(fingerprint, sample, now_s)
            return series.tell(now_s) if is_first else None

    def due(self, now_s: float) -> list[tuple[Sample, Impact]]:
        """Summaries that must be sent now, each with its latest sample; forgets series that are over."""
        with self._lock:
            over = [fingerprint for fingerprint, series in self._series.items() if series.is_over(now_s)]
            due = [(series.sample, series.tell(now_s)) for series in self._series.values() if series.is_due(now_s)]
            for fingerprint in over:
                del self._series[fingerprint]
            return due

    def flush(self, now_s: float) -> list[tuple[Sample, Impact]]:
        """All remaining summaries, at the end."""
        with self._lock:
            held = [(series.sample, series.tell(now_s)) for series in self._series.values() if series.held]
            self._series.clear()
            return held

    def _of(self, fingerprint: Fingerprint, sample: Sample, now_s: float) -> tuple[_Series[Sample], bool]:
        if fingerprint not in self._series and len(self._series) >= _MOST_SERIES:
            fingerprint = OVERFLOW
        if (known := self._series.get(fingerprint)) is not None:
            return known, False
        fresh = self._series[fingerprint] = _Series(now_s, now_s, now_s, sample)
        return fresh, True
