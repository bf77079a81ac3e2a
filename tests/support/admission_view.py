"""Checks that hold for any state of admission: calls stay within the configured limit, and numbers are sane."""

import math
from dataclasses import dataclass, field
from typing import Any, Final

import pytest
from oracles.admission_model import OPEN, START_BURST_MS, Gate, Learned, Model

from support.admission_parts import PERMITS, QUOTA

WORDS: Final = (
    *(b"gate", b"gate_code", b"gate_body", b"gate_tenant", b"confirmed_by", b"paused_by", b"paused_why"),
    *(b"waits_for", b"ten_a", b"ten_b", b"bod_a", b"bod_b"),
    *(b"pr_rows", b"pr_tenants"),
)
LEARNED: Final = ("scale", "burst_ms", "refund", "backoff_ms", "refusal_ms", "lenience", "cut_at_ms", "pause_until")
BOUNDS: Final = {
    "ceiling": (0, math.inf),
    "hint": (0, math.inf),
    "busy_ms": (0, math.inf),
    "passed_ms": (0, math.inf),
    "lenience": (0, 4),
    "burst_ms": (1, 60_000),
    "hold_ms": (0, 90_000),
    "refund": (0, 1),
    "backoff_ms": (100, 8_000),
    "refusal_ms": (0, 2_000),
    "probing": (0, 1),
    "re_left": (0, 10),
    "pr_share": (0, 10),
    "fl_limit": (4, math.inf),
    "fl_crowded": (0, 1),
    "si_started": (0, math.inf),
    "st_window": (0, math.inf),
    "st_young": (0, math.inf),
    "st_older": (0, math.inf),
    "st_least": (0, math.inf),
}
DEEPEST_CUT: Final = 0.97 * 0.4


@dataclass(frozen=True)
class Seen:
    """All that admission keeps in Redis."""

    state: dict[bytes, bytes]
    permits: dict[str, float]

    @property
    def settled(self) -> "Seen":
        """Without the times at which a lane, or who is on probation, comes back: a question asked twice moves them."""
        moved = (b"pr_back", b"wanting:")
        return Seen({name: value for name, value in self.state.items() if not name.startswith(moved)}, self.permits)

    def number(self, name: str) -> float:
        return float(self.state.get(name.encode(), 0))

    def learned(self) -> Learned:
        in_flight = float(self.state.get(b"fl_limit", math.inf))
        return Learned(*map(self.number, LEARNED), in_flight=in_flight, room=self.room)

    @property
    def room(self) -> float | None:
        """During a slow start: calls that may still start at once."""
        window = self.number("st_window")
        return window - self.number("st_young") - self.number("st_older") if window else None

    def gate(self) -> Gate:
        if b"gate" not in self.state:
            return OPEN
        name, code = (self.state[word].decode() for word in (b"gate", b"gate_code"))
        since, probe_at, probe_ms = map(self.number, ("gate_since", "probe_at", "probe_ms"))
        return Gate(name, code, since, probe_at, probe_ms, silence=not self.state[b"gate_body"])


def look(server: Any) -> Seen:
    with server.pipeline(transaction=False) as batch:
        state, permits = batch.hgetall(QUOTA).zrange(PERMITS, 0, -1, withscores=True).execute()
    return Seen(state, {token.decode(): expiry for token, expiry in permits})


@dataclass
class Promise:
    """The most that the configured limit allows in any time: a burst and the time's earnings, in nominal ms."""

    longest_burst_ms: int
    level_ms: float = 0

    def earn(self, ms: float) -> None:
        self.level_ms = min(self.longest_burst_ms, self.level_ms + ms)

    def keeps(self, cost_ms: float, full_ms: float) -> bool:
        """Takes the cost of a call; what is larger than a full bucket may start from a full one."""
        enough = self.level_ms >= min(cost_ms, full_ms) - 0.001
        self.level_ms -= cost_ms
        return enough


@dataclass
class Promises:
    """Costs granted and not given back, in requests and in tokens, beside what the configured limit allows."""

    model: Model
    both: tuple[Promise, Promise] = field(init=False)
    charged: set[str] = field(default_factory=set[str])

    def __post_init__(self) -> None:
        burst_ms = self.model.longest_burst_ms
        self.both = (Promise(burst_ms), Promise(burst_ms))
        self.renew()

    def renew(self) -> None:
        for promise in self.both:
            promise.level_ms = min(START_BURST_MS, promise.longest_burst_ms)

    def earn(self, ms: int) -> None:
        for promise in self.both:
            promise.earn(ms)

    def admitted(self, new: set[str], asked: list[tuple[str, int]], full_ms: float) -> None:
        for token, tokens in asked:
            if token in new:
                self.charged.add(token)
                for promise, cost in zip(self.both, (self.model.request_ms, tokens * self.model.token_ms), strict=True):
                    kept = promise.keeps(cost, full_ms)
                    assert kept or not self.model.known, "granted more than the limit allows"

    def settled(self, token: Any, reserved: Any, used: Any, called: Any) -> None:
        if token in self.charged:
            self.charged.remove(token)
            self.both[0].earn(0 if called else self.model.request_ms)
            self.both[1].earn((reserved - used * called) * self.model.token_ms)


def check_kept(seen: Seen, model: Model, command: str) -> None:
    """The script and the model keep the same values."""
    assert seen.permits == model.permits, command
    assert (b"paused" in seen.state) == model.paused, command
    assert seen.number("pause_until") == model.pause_until, command
    assert seen.gate() == model.gate, command
    if not model.fresh:
        levels = seen.number("requests_ms"), seen.number("tokens_ms")
        assert levels == pytest.approx((model.requests_ms, model.tokens_ms), rel=1e-9, abs=0.001), command
        assert seen.number("cut_at_ms") == model.cut_at, command
        spent = {lane: seen.number(f"spent:{lane}") or min(model.virtual, least) for lane, least in model.spent.items()}
        assert spent == pytest.approx(model.spent), command
        (model.requests_ms, model.tokens_ms), model.spent = levels, spent
    model.pause_until = seen.number("pause_until")


def check_learned(seen: Seen, before: Seen, model: Model, command: str, *, throttled: bool) -> None:
    """Every number is one, and within its bounds; only a refused call slows the fleet, and never too deep at once."""
    numbers = {name.decode(): float(value) for name, value in seen.state.items() if name not in WORDS}
    assert all(map(math.isfinite, numbers.values())), command
    if b"scale" not in seen.state:
        return
    for name, (least, most) in BOUNDS.items():
        assert least <= numbers.get(name, least) <= most, name
    assert 0.01 <= numbers["scale"] <= (1 if model.known else math.inf)
    if b"scale" in before.state and before.room is None:
        least = before.number("scale") * (DEEPEST_CUT * 0.999 if throttled else 1)
        # Refusals of calls that were on their way as the slow start ended still measure the limit, down to `st_least`.
        measuring = throttled and before.number("st_searching")
        assert numbers["scale"] >= (min(least, DEEPEST_CUT * 0.999 * before.number("st_least")) if measuring else least)
