"""The fleet's budget in a handful of numbers: who may call the upstream now, learned from what it refuses.

`State` is what one Redis hash holds; each public method of `Controller` is one call of its script, in server
milliseconds. Budget is counted in *nominal* ms: a call costs the time in which the configured limit earns it
(60,000 / RPM for the request, 60,000 / TPM per token), so that one learned number, `scale`, serves both: buckets
earn `scale` nominal ms per ms. A configured limit is scale 1 and also its cap; without one a call costs 1,000
nominal ms, so scale reads as calls per second, and has no cap; slow_start.py says how a first rate is found.
"""

from oracles.controller import lanes, slow_start
from oracles.controller.lanes import Lane
from oracles.controller.pace_state import BACKOFF_MS, State

# Learning
HEADROOM = 0.97  # of a ceiling just met: window edges and network jitter misplace a call or two
GROWTH = 0.03  # per second once the hold is over; a hit costs (excess rate x time to refuse) calls
HINT_GROWTH = 8.0  # fold per second, towards a limit that headers name
HOLD_MS, HOLD_HINT_MS, HOLD_MAX_MS = 15_000, 30_000, 90_000  # quiet time under a ceiling before probing
HOLD_CALLS = 50  # ... and at least so many calls: a slow upstream has little to spare for probes
CONFIRMED = 0.3  # a ceiling met again within this share doubles the hold
SHUT_WEIGHT = 3  # who stays shut for t counts by windows longer than t: the hold grows by this much of t
EVIDENCE = 5  # calls that must have passed since the last cut before they measure a rate
DEEPEST_CUT = 0.4  # at once: a few calls after a long pause measure badly
BURSTY = 1.1  # calls that passed this much faster than earned: the burst was too much, not the rate
FLOOR = 0.01
FORGIVEN = 0.03  # of the calls: so few refusals, at a rate that was not tried for more, are none of our doing
MOST_FORGIVEN = 4.0  # in a row, earned by the calls before
# Pausing
BACKOFF_MAX_MS = 8_000
REFUSAL_MAX_MS = 2_000  # of the time the upstream takes to refuse
PROBE_PATIENCE = slow_start.PATIENCE  # x that time: a lone call not refused by then shows an open upstream
MAX_PAUSE_MS = 900_000
# Bursts and lanes
START_BURST_MS, MIN_BURST_MS = 500, 250
CROWDED_POLL_MS = 50.0
LANE_POLL_MS = 25.0  # when another lane's turn ends, only that lane knows
MINUTE_MS = 60_000


class Pace:
    """Keeps the calls of a whole fleet under limits it was told or has to find out."""

    def __init__(self, *, now_ms: float, rpm: float = 0, tpm: float = 0, burst_s: float = 2.0) -> None:
        known = bool(rpm or tpm)
        self.token_ms = MINUTE_MS / tpm if tpm else 0.0
        self.request_ms = MINUTE_MS / rpm if rpm else 0.0 if tpm else 1_000.0
        self.cap = 1.0 if known else float("inf")
        self.burst_ms = burst_s * 1_000
        level = min(START_BURST_MS, self.burst_ms)  # a bucket found empty: nobody knows who called before
        self.state = State(
            at_ms=now_ms,
            scale=1.0,
            ceiling=1.0 if known else 0.0,
            hold_ms=HOLD_MAX_MS if known else 0.0,
            burst_ms=self.burst_ms if known else level,
            requests_ms=level,
            tokens_ms=level,
            lenience=MOST_FORGIVEN if known else 0.0,
        )
        if not known:
            slow_start.begin(self.state, now_ms)

    def last_turn(self, lane: str) -> float:
        """The last time at which a process of this lane was told to come back."""
        return lanes.last_turn(self.state.lanes.get(lane, Lane()))

    def admit(
        self,
        now_ms: float,
        lane: str,
        weight: float,
        costs: list[int],
        *,
        crowded: bool = False,
        turn: tuple[float, int] | None = None,
    ) -> tuple[int, float]:
        """The number of `costs` (tokens each), in order, that may start now, and the ms until the rest may ask.

        `turn`: the last one before this round, and how many are left to ask for.
        """
        self._refill(now_ms)
        s, mine = self.state, self.state.lanes.setdefault(lane, Lane())
        behind_ms = lanes.claim(s.lanes, mine, now_ms, s.virtual_ms)
        for granted, tokens in enumerate(costs):
            wait_ms = self._wait(now_ms, mine, behind_ms, tokens, crowded=crowded)
            if wait_ms > 0:
                last_ms, left = turn or (lanes.last_turn(mine), len(costs) - granted)
                if not crowded and not s.slow.window and now_ms >= s.pause_until_ms:
                    wait_ms = lanes.turn(last_ms, now_ms, wait_ms, left * self.charge(tokens) / s.scale)
                lanes.wait(mine, now_ms, wait_ms)
                return granted, wait_ms
            self._spend(now_ms, mine, weight, tokens)
        return len(costs), 0.0

    def settle(self, now_ms: float, reserved: int, used: int) -> None:
        """Corrects a reservation to what the call used, as far as the upstream does the same."""
        self._refill(now_ms)
        s = self.state
        unused = (reserved - used) * (s.refund if used < reserved else 1.0)
        s.tokens_ms = min(s.burst_ms * s.scale, s.tokens_ms + unused * self.token_ms)

    def give_back(self, now_ms: float, tokens: int) -> None:
        """Returns the grant of a call that never ran."""
        self._refill(now_ms)
        s = self.state
        s.requests_ms = min(s.burst_ms * s.scale, s.requests_ms + self.request_ms)
        s.tokens_ms = min(s.burst_ms * s.scale, s.tokens_ms + tokens * self.token_ms)
        s.passed_ms = max(0.0, s.passed_ms - self.charge(tokens))  # it may be from before a cut

    def recover(self, now_ms: float) -> None:
        """A gateway that has just recovered is not met with a whole burst."""
        self._refill(now_ms)
        s = self.state
        slow_start.again(s.slow)
        most = START_BURST_MS * s.scale
        s.requests_ms, s.tokens_ms = min(s.requests_ms, most), min(s.tokens_ms, most)

    def learn(self, limit_rpm: float) -> None:
        """Takes the limit in headers as a mark to climb to quickly, until the first refusal."""
        if self.cap > 1:
            self.state.hint = limit_rpm * self.request_ms / MINUTE_MS
            if self.state.hint:
                slow_start.told(self.state, max(FLOOR, HEADROOM * self.state.hint))

    def ended(self, now_ms: float, granted_at_ms: float, *, passed: bool) -> None:
        """A call ended; `passed` says that the upstream took it."""
        self._refill(now_ms)
        slow_start.ended(self.state.slow, granted_at_ms, passed=passed)

    def throttled(
        self, now_ms: float, granted_at_ms: float, tokens: int, told_ms: float = 0, since: int = 0, share: float = 0
    ) -> None:
        """Pauses the fleet; slows it too if the refused call, `since` others ago, is newer than the last cut."""
        self._refill(now_ms)
        s, pause_ms = self.state, min(told_ms, MAX_PAUSE_MS)
        age_ms = max(0.0, now_ms - granted_at_ms)
        s.refusal_ms = min(REFUSAL_MAX_MS, max(age_ms, 0.8 * s.refusal_ms + 0.2 * age_ms))
        slow_start.refused(s, granted_at_ms)
        if granted_at_ms > s.cut_at_ms and not self._forgives():  # what was in flight at the cut tells nothing new
            own_ms = (
                self._cut(age_ms, self.charge(tokens), share) if not s.slow.window else slow_start.end(s, age_ms, since)
            )
            pause_ms = max(pause_ms, own_ms)
            s.hold_ms = min(s.hold_ms + SHUT_WEIGHT * pause_ms, HOLD_MAX_MS)
            s.requests_ms, s.tokens_ms, s.cut_at_ms = min(s.requests_ms, 0.0), min(s.tokens_ms, 0.0), now_ms
        if pause_ms > 0:
            s.pause_until_ms = max(s.pause_until_ms, now_ms + pause_ms)
            s.probing = True

    def _forgives(self) -> bool:
        """Whether a refusal is none of our doing: those come alone, where the rate is to blame they come in crowds.

        Token costs are guesses, so none is forgiven where tokens are limited.
        """
        s = self.state
        if s.lenience < 1 or self.token_ms > 0 or not self._held():
            return False
        s.lenience -= 1
        return True

    def charge(self, tokens: int) -> float:
        return max(self.request_ms, tokens * self.token_ms)

    def _refill(self, now_ms: float) -> None:
        """Earns budget for the time since the last call; a pause earns none."""
        s = self.state
        if now_ms < s.at_ms:
            self._rewind(s.at_ms - now_ms)
        elapsed_ms = now_ms - s.at_ms
        s.at_ms = now_ms
        if s.slow.window:
            slow_start.turn(s, now_ms, elapsed_ms)
            return
        open_ms = min(elapsed_ms, max(0.0, now_ms - s.pause_until_ms))
        full = s.burst_ms * s.scale
        # A bucket over half full held nobody back: such time neither measures the upstream nor earns growth.
        scarce_ms = min(open_ms, max(0.0, full / 2 - min(s.requests_ms, s.tokens_ms)) / s.scale)
        s.requests_ms = min(full, s.requests_ms + open_ms * s.scale)
        s.tokens_ms = min(full, s.tokens_ms + open_ms * s.scale)
        s.busy_ms += elapsed_ms - open_ms + scarce_ms
        self._grow(scarce_ms / 1_000)

    def _rewind(self, jump_ms: float) -> None:
        """The server's clock was set back: moves every remembered time with it."""
        s = self.state
        s.at_ms -= jump_ms
        s.pause_until_ms -= jump_ms if s.pause_until_ms else 0.0  # 0 is never
        s.cut_at_ms -= jump_ms if s.cut_at_ms else 0.0
        s.slow.since_ms -= jump_ms if s.slow.since_ms else 0.0
        for lane in s.lanes.values():
            lane.wanting_until_ms -= jump_ms

    def _grow(self, seconds: float) -> None:
        s = self.state
        named = 0.0 if s.cut_at_ms else HEADROOM * s.hint
        if s.scale < named:
            s.scale = min(named, s.scale * HINT_GROWTH**seconds)
            if s.scale == named:
                s.ceiling, s.hold_ms, s.busy_ms, s.passed_ms = s.hint, HOLD_HINT_MS, 0.0, 0.0
        elif not self._held():
            growth = slow_start.growth(s) if s.slow.searching else GROWTH
            s.scale = min(self.cap, s.scale * (1 + growth * seconds))
            s.burst_ms = min(self.burst_ms, s.burst_ms * (1 + GROWTH * seconds))
            s.refund = min(1.0, s.refund + GROWTH * seconds)

    def _held(self) -> bool:
        """Whether it is too soon, in time or in calls since the last cut, to try for more."""
        s = self.state
        few = bool(s.cut_at_ms) and not s.slow.searching and s.passed_ms <= HOLD_CALLS * self.request_ms
        return s.busy_ms <= s.hold_ms or few

    def _wait(self, now_ms: float, mine: Lane, behind_ms: float, tokens: int, *, crowded: bool) -> float:
        s = self.state
        if now_ms < s.pause_until_ms:
            return s.pause_until_ms - now_ms
        if crowded:
            return CROWDED_POLL_MS
        if mine.spent_ms > behind_ms + lanes.LEAD_MS * s.scale:
            return LANE_POLL_MS
        if s.slow.window:
            return 0.0 if slow_start.room(s.slow) else CROWDED_POLL_MS
        full = s.burst_ms * s.scale  # a call dearer than a full bucket goes at a full one, and leaves a debt
        short_of_requests = min(self.request_ms, full) - s.requests_ms
        short_of_tokens = min(tokens * self.token_ms, full) - s.tokens_ms
        return max(0.0, short_of_requests, short_of_tokens) / s.scale

    def _spend(self, now_ms: float, mine: Lane, weight: float, tokens: int) -> None:
        s = self.state
        charge = self.charge(tokens)
        if s.slow.window:
            slow_start.grant(s.slow)
        else:
            s.requests_ms -= self.request_ms
            s.tokens_ms -= tokens * self.token_ms
        s.passed_ms += charge
        s.lenience = min(MOST_FORGIVEN, s.lenience + FORGIVEN)
        s.virtual_ms = max(s.virtual_ms, mine.spent_ms)
        mine.spent_ms += charge / weight
        if s.probing:
            s.probing = False
            s.pause_until_ms = now_ms + PROBE_PATIENCE * s.refusal_ms
            if not s.slow.searching and s.passed_ms <= EVIDENCE * charge:
                slow_start.lone(s)
                self._refill(now_ms)

    def _cut(self, age_ms: float, charge: float, share: float) -> float:
        """Sets the scale to what the upstream let pass since the last cut, and says for how long to back off."""
        s = self.state
        passed_ms = s.passed_ms - charge - age_ms * s.scale  # what followed the refused call was refused, too
        if passed_ms < EVIDENCE * charge:
            s.passed_ms = max(0.0, passed_ms)
            s.backoff_ms = min(s.backoff_ms * 2, BACKOFF_MAX_MS)
            slow_start.lone(s)
            return s.backoff_ms
        measured = passed_ms / max(1.0, s.busy_ms - age_ms)
        if measured > BURSTY * s.scale:
            s.burst_ms = max(min(MIN_BURST_MS, s.burst_ms), s.burst_ms / 2)
        measured *= 1 - share  # of the calls since the last cut were refused, too
        if not self._held() and not s.slow.searching:  # growing: the limit lies between what passed and what did not
            measured = (measured + s.scale) / 2
        ceiling = min(s.scale, max(measured, DEEPEST_CUT * s.scale))
        confirmed = abs(ceiling - s.ceiling) <= CONFIRMED * s.ceiling
        s.hold_ms = HOLD_MS * s.slow.learners if s.slow.searching or not confirmed else s.hold_ms * 2
        s.slow.searching, s.slow.passed_ms = False, 0.0
        s.ceiling, s.scale, s.refund = ceiling, max(FLOOR, HEADROOM * ceiling), s.refund / 4
        s.busy_ms, s.passed_ms, s.lenience, s.backoff_ms = 0.0, 0.0, 0.0, BACKOFF_MS
        return s.backoff_ms
