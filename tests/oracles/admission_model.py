"""What admission is meant to do, said once more in plain Python: who may call, given how fast the fleet has learned to.

`Model.<command>` takes `arg` and `rows` as the script's command does, and returns its reply. How the rate is learned is
left to the simulated controller; the model takes the learned numbers as given and holds the script to them.
"""

import math
from dataclasses import dataclass, field
from typing import Any, Final

START_BURST_MS: Final = 500
CONFIRM_MS: Final = 5_000
FIRST_PROBE_MS, LAST_PROBE_MS = 2_000, 15_000
LANE_LEAD_MS, LANE_GRACE_MS = 100, 250
MOST_FORGIVEN: Final = 4
NO_LIMIT: Final = {"rpm": 0, "tpm": 0, "in_flight": 0}

Answer = tuple[int, float, str, str, int]
"""Granted, wait in ms, reason, code, probe."""


@dataclass
class Learned:
    """What the script found out of the upstream; the model believes it."""

    scale: float
    burst_ms: float
    refund: float = 0.0
    backoff_ms: float = 100.0
    refusal_ms: float = 200.0
    lenience: float = 0.0
    cut_at: float = 0.0


@dataclass
class Shut:
    """A gate, and when it may be tried again."""

    gate: str
    code: str
    since: float
    probe_at: float
    probe_ms: int
    confirmed_by: tuple[str, int] | None = None
    """Token and time of grant of the call that confirmed it."""


@dataclass
class Counts:
    """Calls and failures of this half minute or forty calls, and of the one before."""

    since: float = 0
    this: tuple[int, int] = (0, 0)
    before: tuple[int, int] = (0, 0)

    def add(self, now: int, *, failed: bool) -> bool:
        """Whether of at least twenty calls more than half failed."""
        if now - self.since >= 30_000 or self.this[0] >= 40:
            self.before = self.this if now - self.since < 60_000 else (0, 0)
            self.since, self.this = now, (0, 0)
        self.this = (self.this[0] + 1, self.this[1] + failed)
        calls, failures = (sum(pair) for pair in zip(self.this, self.before, strict=True))
        return calls >= 20 and failures > calls / 2


@dataclass
class Model:
    """One fleet; times in ms of server time, budget in nominal ms."""

    configured: dict[str, int]
    longest_burst_ms: int
    now: int
    overrides: dict[str, int] = field(default_factory=dict[str, int])
    permits: dict[str, float] = field(default_factory=dict[str, float])
    shut: Shut | None = None
    paused: bool = False
    pause_until: float = 0
    cut_at: float = 0
    probing: bool = False
    fresh: bool = True
    """Nothing was learned yet, or limits have just changed: the bucket is as at the start."""
    at: float | None = None
    requests_ms: float = 0
    tokens_ms: float = 0
    counts: Counts = field(default_factory=Counts)
    spent: dict[str, float] = field(default_factory=dict[str, float])
    claims: dict[str, float] = field(default_factory=dict[str, float])
    virtual: float = 0
    learned: Learned = field(init=False)

    # The limits and what they make a call cost

    def in_force(self, name: str) -> int:
        return self.overrides.get(name, self.configured[name])

    @property
    def known(self) -> bool:
        return self.in_force("rpm") > 0 or self.in_force("tpm") > 0

    @property
    def request_ms(self) -> float:
        rpm = self.in_force("rpm")
        return 60_000 / rpm if rpm else 0 if self.known else 1_000

    @property
    def token_ms(self) -> float:
        tpm = self.in_force("tpm")
        return 60_000 / tpm if tpm else 0

    def cost(self, tokens: int) -> float:
        return max(self.request_ms, tokens * self.token_ms)

    @property
    def full_ms(self) -> float:
        return self.learned.burst_ms * self.learned.scale

    # The commands

    def arrive(self) -> None:
        """What every command begins with: a clock that went back takes all that is to come back with it."""
        back = (self.at or 0) - self.now
        if back > 0:
            self.at = self.now
            self.pause_until -= back if self.pause_until else 0
            self.cut_at -= back if self.cut_at else 0
            self.permits = {token: expiry - back for token, expiry in self.permits.items()}
            self.claims = {lane: until - back for lane, until in self.claims.items()}
            self.counts.since -= back if self.counts.since else 0
            if self.shut:
                self.shut.since, self.shut.probe_at = self.shut.since - back, self.shut.probe_at - back
        if self.fresh:
            level = min(START_BURST_MS, self.longest_burst_ms)
            self.requests_ms = self.tokens_ms = level
            self.learned = Learned(1, self.longest_burst_ms) if self.known else Learned(1.5, level)
            self.learned.lenience = MOST_FORGIVEN if self.known else 0
            self.probing, self.cut_at = False, 0

    def earn(self, learned: Learned) -> None:
        """Budget for the time since the last call, but for the part of it that was a pause."""
        elapsed = 0 if self.fresh else self.now - (self.at or 0)
        earned = min(elapsed, max(0, self.now - self.pause_until)) * self.learned.scale
        self.requests_ms = min(self.full_ms, self.requests_ms + earned)
        self.tokens_ms = min(self.full_ms, self.tokens_ms + earned)
        self.at, self.fresh, self.learned = self.now, False, learned

    def admit(self, learned: Learned, arg: Any, asked: list[Any]) -> Answer:
        lane = arg.lane
        if self.paused:
            return 0, 1_000, "paused", "", 0
        if self.shut:
            return self._try(self.shut, asked[0].token, arg.lease_ms, arg.probe_ms)
        self.earn(learned)
        self.permits = {token: expiry for token, expiry in self.permits.items() if expiry > self.now}
        others = [
            self.spent.get(other, 0) for other, until in self.claims.items() if until > self.now and other != lane
        ]
        if self.claims.get(lane, 0) <= self.now:
            self.spent[lane] = max(self.spent.get(lane, 0), self.virtual)
        return self._grant(arg, min(others, default=math.inf), asked)

    def _try(self, shut: Shut, token: str, lease_ms: int, probe_ms: int) -> Answer:
        if token in self.permits:
            return 1, shut.probe_ms, shut.gate, shut.code, 1
        if self.now < shut.probe_at:
            return 0, shut.probe_at - self.now, shut.gate, shut.code, 0
        self.permits[token], self.at = self.now + lease_ms, self.now
        patience_ms = LAST_PROBE_MS if shut.gate == "breaker_open" else probe_ms
        shut.probe_at = self.now + max(patience_ms, shut.probe_ms)
        return 1, shut.probe_ms, shut.gate, shut.code, 1

    def _grant(self, arg: Any, behind: float, asked: list[Any]) -> Answer:
        lane = arg.lane
        for index, (token, tokens) in enumerate((call.token, call.tokens) for call in asked):
            if token in self.permits:
                continue
            wait_ms, reason = self._obstacle(lane, behind, tokens)
            if wait_ms > 0:
                self.claims[lane] = self.now + min(wait_ms, 1_000) + LANE_GRACE_MS
                return index, wait_ms, reason, "", 0
            self.permits[token] = self.now + arg.lease_ms
            self.requests_ms -= self.request_ms
            self.tokens_ms -= tokens * self.token_ms
            self.virtual = max(self.virtual, self.spent[lane])
            self.spent[lane] += self.cost(tokens) / arg.weight
            if self.probing:
                self.probing, self.pause_until = False, self.now + 1.25 * self.learned.refusal_ms
        return len(asked), 0, "", "", 0

    def _obstacle(self, lane: str, behind: float, tokens: int) -> tuple[float, str]:
        if self.now < self.pause_until:
            return self.pause_until - self.now, "throttled"
        if 0 < self.in_force("in_flight") <= len(self.permits):
            return 50, "concurrency"
        if self.spent[lane] > behind + LANE_LEAD_MS * self.learned.scale:
            return 25, "share"
        requests = min(self.request_ms, self.full_ms) - self.requests_ms
        missing = min(tokens * self.token_ms, self.full_ms) - self.tokens_ms
        return max(0, requests, missing) / self.learned.scale, "requests" if requests >= missing else "tokens"

    def report(self, learned: Learned, arg: Any, _: Any) -> list[Any]:
        if self.permits.pop(arg.token, None) is None:
            confirms = self.shut and self.shut.confirmed_by == (arg.token, arg.granted_at)
            return self._told(confirms=bool(confirms))
        lenience = self.learned.lenience
        self._settle(learned, arg)
        if arg.retry_after_ms is not None:
            self._throttled(lenience, arg)
        return self._told(confirms=arg.gate != "" and self._refused(arg))

    def _told(self, *, confirms: bool) -> list[Any]:
        return [*((self.shut.gate, self.shut.code) if self.shut else ("", "")), int(confirms)]

    def _settle(self, learned: Learned, arg: Any) -> None:
        self.earn(learned)
        if not (self.shut and arg.granted_at > self.shut.since):  # a probe was not charged
            self._correct(arg.reserved, arg.used, arg.called)
        if self.shut:
            self._tried(self.shut, arg.granted_at, arg.called, arg.health)
        elif arg.health and self.counts.add(self.now, failed=arg.health == "failed"):
            self.shut = Shut("breaker_open", "upstream_error", self.now, self.now + FIRST_PROBE_MS, FIRST_PROBE_MS)

    def _correct(self, reserved: int, used: int, called: int) -> None:
        if not called:
            self.requests_ms = min(self.full_ms, self.requests_ms + self.request_ms)
        believed = self.learned.refund if called and used < reserved else 1
        unused = (reserved - used if called else reserved) * self.token_ms * believed
        self.tokens_ms = min(self.full_ms, self.tokens_ms + unused)

    def _tried(self, shut: Shut, granted_at: int, called: int, verdict: str) -> None:
        newer = granted_at > shut.since
        if newer and verdict == "ok":
            self._open()
        elif newer and not (called or verdict):
            shut.probe_at = self.now

    def _open(self) -> None:
        most = START_BURST_MS * self.learned.scale
        self.requests_ms, self.tokens_ms = min(self.requests_ms, most), min(self.tokens_ms, most)
        self.shut, self.counts = None, Counts()

    def _throttled(self, lenience: float, arg: Any) -> None:
        longest_ms = arg.longest_pause_ms
        pause_ms = min(arg.retry_after_ms, longest_ms)
        if arg.granted_at > self.cut_at and not self._forgave(lenience):
            pause_ms = max(pause_ms, self.learned.backoff_ms)
            self.requests_ms, self.tokens_ms = min(self.requests_ms, 0), min(self.tokens_ms, 0)
            self.cut_at = self.now
        if pause_ms > 0:
            self.pause_until = max(min(self.pause_until, self.now + longest_ms), self.now + pause_ms)
            self.probing = True

    def _forgave(self, lenience: float) -> bool:
        """Whether the script did, and had the right to."""
        if self.learned.cut_at == self.now:
            return False
        assert lenience >= 1
        assert not self.token_ms
        assert math.isclose(self.learned.lenience, lenience - 1, abs_tol=1e-6)
        return True

    def _refused(self, arg: Any) -> bool:
        shut = self.shut
        if shut is None or (shut.gate == "breaker_open" != arg.gate):
            self.shut = Shut(arg.gate, arg.code, self.now, self.now + CONFIRM_MS, CONFIRM_MS)
            return False
        if arg.granted_at <= shut.since:
            return False
        next_ms = min(2 * shut.probe_ms, LAST_PROBE_MS) if arg.gate == "breaker_open" else arg.probe_ms
        confirmed_by = shut.confirmed_by or (arg.token, arg.granted_at)
        self.shut = Shut(arg.gate, arg.code, shut.since, self.now + next_ms, next_ms, confirmed_by)
        return shut.confirmed_by is None

    def pause(self, *_: Any) -> int:
        news = int(not self.paused)
        self.paused = True
        return news

    def resume(self, *_: Any) -> int:
        self._open()
        self.pause_until, self.probing = 0, False
        was, self.paused = self.paused, False
        return int(was)

    def limits(self, _: Learned, arg: Any, _rows: Any) -> int:
        for name, limit in zip(NO_LIMIT, (arg.limit_rpm, arg.limit_tpm, arg.limit_in_flight), strict=True):
            if limit == "default":
                self.overrides.pop(name, None)
            elif limit:
                self.overrides[name] = int(limit)
        was_fresh, self.fresh = self.fresh, True
        return int(not was_fresh)
