"""The last hour of a fleet, minute by minute, as its workers keep it in Redis (`lua/registry.lua`).

`History` reads; a closed minute never changes, so it is read once. `Span` answers questions about some minutes, and
knows nothing of Redis.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from worker.storage import keys
from worker.telemetry.tally import middle_ms

MINUTE_MS: Final = 60_000
MINUTES: Final = 60
CLOSED: Final = 2
"""Minutes after which nothing is added to one: reports come every two seconds, and late ones are rare."""

Name = tuple[str, str, str]
"""Kind, owner and name of a count, as `worker.telemetry.tally` lists them."""


@dataclass(frozen=True, slots=True)
class Span:
    """Counts of some time; every question may be limited to one lane, or one route where calls are asked for."""

    at_ms: int
    """When it began, in ms of server time."""
    counts: Mapping[Name, float] = field(default_factory=dict[Name, float])

    def by_which(self, what: str, whose: str | None = None) -> Counter[str]:
        """For example answers by outcome, failures by error code, or calls by how they ended."""
        found = Counter[str]()
        for (kind, owner, which), count in self.counts.items():
            if kind == what and whose in (None, owner):
                found[which] += _whole(count)
        return found

    def by_whom(self, what: str) -> Counter[str]:
        """For example answers by lane, or calls by route."""
        found = Counter[str]()
        for (kind, owner, _), count in self.counts.items():
            if kind == what:
                found[owner] += _whole(count)
        return found

    def answers(self, lane: str | None = None) -> int:
        return self.by_which("answers", lane).total()

    def failures(self, lane: str | None = None) -> Mapping[str, int]:
        """Answers that failed or are incomplete, by error code, the most frequent first."""
        return dict(self.by_which("failed", lane).most_common())

    def throttled(self, lane: str | None = None) -> int:
        """Calls that the gateway refused with 429."""
        return self.by_which("throttled", lane).total()

    def percentile_ms(self, what: str, share: float, whose: str | None = None) -> int | None:
        """The time that this share of requests or calls stayed under, give or take a tenth; None where there are none.

        `what` is `total`, `queued` (both by lane) or `called` (by route).
        """
        found = self.by_which(what, whose)
        left = share * found.total()
        for number in sorted(found, key=int):
            left -= found[number]
            if left <= 0:
                return round(middle_ms(int(number)))
        return None


def total(spans: Iterable[Span]) -> Span:
    """All of them together."""
    spans, counts = list(spans), Counter[Name]()
    for span in spans:
        counts.update(span.counts)  # pyright: ignore[reportArgumentType]  # a Counter adds any numbers
    return Span(min((span.at_ms for span in spans), default=0), dict(counts))


def last_minute(minutes: Sequence[Span], now_ms: int) -> Span:
    """The last sixty seconds: the minute that runs, and of the one before as large a part as belongs to them."""
    *_, before, running = [Span(0), Span(0), *minutes]
    left = 1 - (now_ms % MINUTE_MS) / MINUTE_MS
    counts = Counter[Name](dict(running.counts))  # pyright: ignore[reportArgumentType]  # as above
    counts.update({name: count * left for name, count in before.counts.items()})  # pyright: ignore[reportArgumentType]  # as above
    return Span(now_ms - MINUTE_MS, dict(counts))


@dataclass(slots=True)
class History:
    """Reads the last hour of one fleet again and again; remembers the minutes that are closed."""

    fleet: str
    _minutes: dict[int, Span] = field(default_factory=dict[int, Span])
    _tenants: dict[int, Mapping[str, int]] = field(default_factory=dict[int, Mapping[str, int]])

    def read(self, redis: Any, now_ms: int) -> list[Span]:
        """Sixty minutes, the oldest first, the last one still running; raises redis.RedisError."""
        running = now_ms // MINUTE_MS
        wanted = range(running - MINUTES + 1, running + 1)
        missing = [minute for minute in wanted if minute not in self._minutes or minute > running - CLOSED]
        names = keys.fleet(self.fleet)
        with redis.pipeline(transaction=False) as batch:
            for minute in missing:
                batch.hgetall(f"{names['history']}:{minute}")
                batch.zrange(f"{names['tenants']}:{minute}", 0, -1, withscores=True)
            replies = batch.execute()
        for minute, counts, tenants in zip(missing, replies[::2], replies[1::2], strict=True):
            self._minutes[minute] = Span(
                minute * MINUTE_MS, {_name(name): int(count) for name, count in counts.items()}
            )
            self._tenants[minute] = {tenant.decode(errors="replace"): round(count) for tenant, count in tenants}
        self._minutes = {minute: self._minutes[minute] for minute in wanted}
        self._tenants = {minute: self._tenants[minute] for minute in wanted}
        return list(self._minutes.values())

    def tenants(self) -> Counter[str]:
        """Answers of the hour that was read last, by tenant; those with few may be missing or too large."""
        found = Counter[str]()
        for minute in self._tenants.values():
            found.update(minute)
        return found


def _name(raw: bytes) -> Name:
    what, whose, which = raw.decode(errors="replace").split(" ", 2)
    return what, whose, which


def _whole(count: float) -> int:
    """Rounded up: what happened once is never shown as never."""
    return -int(-count // 1)
