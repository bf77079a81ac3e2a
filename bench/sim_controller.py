"""The fleet's budget in a handful of numbers: who may call the upstream now, learned from what it refuses.

`State` is what one Redis hash holds and each method of `Controller` is one call of its script, in server
milliseconds. Budget is measured in *nominal milliseconds*: a request costs the time the configured limit
takes to earn it (60,000 / RPM, or tokens x 60,000 / TPM), so one learned number, `scale`, serves requests
and tokens alike: the bucket earns `scale` nominal ms per ms. A configured limit is scale 1 and its cap;
without one the nominal rate is one request a second and scale has no cap.
"""

from dataclasses import dataclass, field

HEADROOM = 0.97  # of a ceiling just met: counts at window edges and clocks jitter by a call or two
GROWTH = 0.03  # per second above the hold; slow, for each hit costs (excess rate x time to refuse) calls
COLD_START = 1.5  # requests/s; the first growth is linear by this much per second, up to 1 / GROWTH seconds
COLD_CUT = 0.7  # first cut from an unknown ceiling: the upstream's burst hides its rate until it is empty
MIX = 0.5

DEEPEST_CUT = 0.1  # a measure over few calls is rough
BURSTY = 1.1  # spent faster than earned: the burst was too much, not the rate
RISEN = 1.25  # past this multiple the remembered ceiling is history
HINT_GROWTH = 8.0  # per second, towards a limit named by headers
HOLD_MS, HOLD_HINT_MS, HOLD_MAX_MS = 15_000, 30_000, 120_000
CONFIRMED = 0.3  # a ceiling met again within this doubles the hold
SHUT_WEIGHT = 3  # an upstream that stays shut for t counts by windows longer than t: hold longer
BACKOFF_MS, BACKOFF_MAX_MS = 100, 8_000
EVIDENCE = 10  # calls that must have passed before a rate is measured
REFUSAL_MS, PROBE_MAX_MS = 200, 2_000
MAX_PAUSE_MS = 900_000
START_BURST_MS, MIN_BURST_MS = 500, 250
LANE_LEAD_MS = 100  # how far a lane may run ahead of one that waits: a poll or two
LANE_GRACE_MS = 250  # a lane that was told to wait keeps its claim this much longer
FLOOR = 0.01
UNKNOWN_MS = 1_000.0
NEVER = -1.0


@dataclass(slots=True)
class Lane:
    """A lane's claim on the budget."""

    spent_ms: float = 0.0  # virtual time: nominal ms granted / weight
    wanting_until_ms: float = 0.0


@dataclass(slots=True)
class State:
    """All the fleet remembers about one upstream."""

    at_ms: float
    scale: float
    ceiling: float  # scale at the last refusal; 0: unknown or outgrown
    burst_ms: float
    requests_ms: float  # bucket levels
    tokens_ms: float
    busy_ms: float = 0.0  # since the last cut, time in which the budget was what held calls back
    passed_ms: float = 0.0  # nominal ms granted in it
    hold_ms: float = HOLD_MS
    cut_at_ms: float = NEVER
    pause_until_ms: float = 0.0
    backoff_ms: float = BACKOFF_MS
    refusal_ms: float = REFUSAL_MS  # how long the upstream takes to say no
    probing: bool = False
    refund: float = 0.0
    hint: float = 0.0
    lanes: dict[str, Lane] = field(default_factory=dict)


class Controller:
    """Grants calls so that the whole fleet stays under limits it was told or has to find out."""

    def __init__(self, *, rpm: float = 0, tpm: float = 0, burst_s: float = 2.0, now_ms: float = 0.0) -> None:
        self.known = bool(rpm or tpm)
        self.request_ms = 60_000 / rpm if rpm else (0.0 if tpm else UNKNOWN_MS)
        self.token_ms = 60_000 / tpm if tpm else 0.0
        self.burst_ms = burst_s * 1000
        self.cap = 1.0 if self.known else float("inf")
        level = min(START_BURST_MS, self.burst_ms)
        self.state = State(
            at_ms=now_ms,
            scale=1.0 if self.known else COLD_START,
            ceiling=1.0 if self.known else 0.0,
            hold_ms=HOLD_MAX_MS if self.known else 0.0,
            burst_ms=self.burst_ms if self.known else level,
            requests_ms=level,
            tokens_ms=level,
        )

    def admit(self, now_ms: float, lane: str, weight: float, costs: list[int]) -> tuple[int, float]:
        """How many of `costs` (tokens each), in order, may start now, and in how many ms to ask for the rest."""
        self._refill(now_ms)
        mine, behind = self._queue(now_ms, lane)
        granted, wait_ms = 0, 0.0
        for tokens in costs:
            wait_ms = self._wait(now_ms, mine, behind, tokens)
            if wait_ms > 0:
                mine.wanting_until_ms = now_ms + min(wait_ms, 1000) + LANE_GRACE_MS
                break
            self._spend(now_ms, mine, weight, tokens)
            granted += 1
        return granted, wait_ms

    def settle(self, now_ms: float, reserved: int, used: int) -> None:
        """Corrects a reservation to what the call used."""
        self._refill(now_ms)
        s = self.state
        unused = (reserved - used) * (s.refund if used < reserved else 1.0)
        s.tokens_ms = min(s.burst_ms * s.scale, s.tokens_ms + unused * self.token_ms)

    def learn(self, limit_rpm: float) -> None:
        """Takes the limit a header names as somewhere to climb to quickly, while nothing was refused yet."""
        if not self.known:
            self.state.hint = limit_rpm * self.request_ms / 60_000

    def throttled(self, now_ms: float, granted_at_ms: float, tokens: int, retry_after_ms: float = 0) -> None:
        """Pauses the fleet, and slows it if the refused call was granted after the last cut."""
        self._refill(now_ms)
        s = self.state
        age_ms = now_ms - granted_at_ms
        s.refusal_ms = max(age_ms, 0.8 * s.refusal_ms + 0.2 * age_ms)
        pause_ms = min(retry_after_ms, MAX_PAUSE_MS)
        if granted_at_ms > s.cut_at_ms:  # calls in flight at the cut tell nothing new
            pause_ms = max(pause_ms, self._cut(age_ms, self._charge(tokens)))
            s.hold_ms = min(s.hold_ms + SHUT_WEIGHT * pause_ms, HOLD_MAX_MS)
            s.requests_ms = min(s.requests_ms, 0.0)
            s.tokens_ms = min(s.tokens_ms, 0.0)
            s.cut_at_ms = now_ms
        if pause_ms > 0:
            s.pause_until_ms = max(s.pause_until_ms, now_ms + pause_ms)
            s.probing = True

    def _charge(self, tokens: int) -> float:
        return max(self.request_ms, tokens * self.token_ms)

    def _refill(self, now_ms: float) -> None:
        """Earns budget for the time since the last call; a pause earns none, and an idle bucket is no evidence."""
        s = self.state
        elapsed = max(0.0, now_ms - s.at_ms)
        s.at_ms += elapsed
        open_ms = min(elapsed, max(0.0, now_ms - s.pause_until_ms))
        full = s.burst_ms * s.scale
        scarce = max(0.0, full / 2 - min(s.requests_ms, s.tokens_ms)) / s.scale
        used = min(open_ms, scarce)
        s.requests_ms = min(full, s.requests_ms + open_ms * s.scale)
        s.tokens_ms = min(full, s.tokens_ms + open_ms * s.scale)
        s.busy_ms += elapsed - open_ms + used
        self._grow(used / 1000)

    def _grow(self, seconds: float) -> None:
        s = self.state
        target = HEADROOM * s.hint if s.cut_at_ms == NEVER else 0.0
        if s.scale < target:
            s.scale = min(target, s.scale * HINT_GROWTH**seconds)
            if s.scale == target:
                s.ceiling, s.hold_ms, s.busy_ms, s.passed_ms = s.hint, HOLD_HINT_MS, 0.0, 0.0
        elif s.busy_ms > s.hold_ms:
            growth = GROWTH
            if s.cut_at_ms == NEVER:
                growth = max(GROWTH, 1000 / max(s.busy_ms, 1000))
            s.refund = min(1.0, s.refund + GROWTH * seconds)
            s.burst_ms = min(self.burst_ms, s.burst_ms * (1 + GROWTH * seconds))
            s.scale *= 1 + growth * seconds
            if s.scale >= self.cap:
                s.scale = s.ceiling = self.cap

    def _queue(self, now_ms: float, lane: str) -> tuple[Lane, float]:
        """The lane's claim, and the least virtual time among the other lanes that wait."""
        lanes = self.state.lanes
        mine = lanes.setdefault(lane, Lane())
        waiting = [o.spent_ms for name, o in lanes.items() if name != lane and o.wanting_until_ms > now_ms]
        behind = min(waiting, default=float("inf"))
        if waiting and mine.wanting_until_ms <= now_ms:
            mine.spent_ms = max(mine.spent_ms, behind)
        return mine, behind

    def _wait(self, now_ms: float, mine: Lane, behind: float, tokens: int) -> float:
        s = self.state
        if now_ms < s.pause_until_ms:
            return s.pause_until_ms - now_ms
        if mine.spent_ms > behind + LANE_LEAD_MS * s.scale:
            return 25.0
        full = s.burst_ms * s.scale
        short_of_requests = min(self.request_ms, full) - s.requests_ms
        short_of_tokens = min(tokens * self.token_ms, full) - s.tokens_ms
        return max(0.0, short_of_requests, short_of_tokens) / s.scale

    def _spend(self, now_ms: float, mine: Lane, weight: float, tokens: int) -> None:
        s = self.state
        charge = self._charge(tokens)
        s.requests_ms -= self.request_ms
        s.tokens_ms -= tokens * self.token_ms
        s.passed_ms += charge
        mine.spent_ms += charge / weight
        if s.probing:  # one call alone shows whether the upstream is open again
            s.probing = False
            s.pause_until_ms = now_ms + min(1.25 * s.refusal_ms, PROBE_MAX_MS)

    def _cut(self, age_ms: float, charge: float) -> float:
        s = self.state
        s.passed_ms -= charge
        if s.passed_ms < EVIDENCE * charge:  # still shut
            s.passed_ms = 0.0
            s.backoff_ms = min(s.backoff_ms * 2, BACKOFF_MAX_MS)
            return s.backoff_ms
        measured = (s.passed_ms - age_ms * s.scale) / max(1.0, s.busy_ms - age_ms)
        if s.busy_ms > s.hold_ms:  # it was growing: what passed is less than what could have
            measured = MIX * s.scale + (1 - MIX) * measured
        if measured > BURSTY * s.scale and s.burst_ms > MIN_BURST_MS:
            s.burst_ms = max(MIN_BURST_MS, s.burst_ms / 2)
        ceiling = min(s.scale, max(measured, s.scale * DEEPEST_CUT))
        confirmed = abs(ceiling - s.ceiling) <= CONFIRMED * s.ceiling
        s.hold_ms = s.hold_ms * 2 if confirmed else HOLD_MS
        s.ceiling = ceiling
        s.refund /= 2
        s.scale = max(FLOOR, HEADROOM * ceiling)
        s.busy_ms = s.passed_ms = 0.0
        s.backoff_ms = BACKOFF_MS
        return s.backoff_ms
