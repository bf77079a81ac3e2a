"""Slow start: how a fleet that knows no limit finds one within seconds.

- Until something names the limit, calls are bounded by a window and not by a rate: so many may be on their way whose
  fate is not known. A call's fate is known when it ends, or when it was not refused within FATE_MS to twice that: a
  refusal comes soon. The first FIRST calls start at once.
- Each call that passed widens the window by one while the window is used, so it doubles each round trip; from LARGE on
  it grows by less, because what is refused when the limit is met is what was on its way. A limit that lets HUGE calls
  pass would be found too late at that speed: from there on it grows faster again.
- The first believed refusal ends the slow start. Of the calls granted from the refused one on, those that are not
  refused tell the limit: whatever burst the upstream allows was used up by then. `least` stands for it where nearly all
  are refused: the rate at which calls passed if the upstream's burst were BURST_S long.
- Then the rate is searched: it grows from there, slowly first and faster the longer nothing is refused, until the next
  refusal measures the upstream without its burst. From then on the rules of pace.py hold alone.
- An upstream that refuses lone calls for more than SHUT_MS counts by windows. What passed from the start until it opens
  again tells its limit, and there is no search.
- A limit that headers name ends the slow start as well; the rate climbs to it.
- Where several accounts of unknown limits serve side by side, FIRST, LARGE and HUGE are of all together, and
  HOLD_MS of pace.py is for each in turn. And none of them need hurry: these calls, and growth, are UNHURRIED of that.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from oracles.controller.pace_state import State

FIRST = 16.0
FATE_MS = 500
LARGE, WIDER = 48.0, 0.15  # calls; a call that passes widens a large window by this much
HUGE, FASTER = 125.0, 0.35
UNHURRIED = 0.5
BURST_S = 15.0
PATIENCE = 1.25  # x the time the upstream takes to refuse
SLOWEST = 0.5  # calls/s
SHUT_MS = 1_500
SEARCH_HOLD_MS, SEARCH_SPEED, SEARCH_MOST = 500, 0.1, 0.5  # growth per second, that much more each second


@dataclass(slots=True)
class SlowStart:
    """The window, and the calls whose fate is not known, by the slot of FATE_MS in which they were granted."""

    learners: int = 1  # accounts of unknown limits that serve side by side
    window: float = 0.0  # 0: the slow start is over, or never was
    slot: int = 0
    young: int = 0  # granted in this slot
    older: int = 0  # in the one before
    used: bool = False  # at the last grant at least half of the window was
    searching: bool = False
    tail_ms: float = 0.0  # time from the refused call's grant to the end of the slow start
    least: float = 0.0
    passed_ms: float = 0.0  # before the end: nominal ms granted, and since when
    since_ms: float = 0.0


def begin(state: "State", now_ms: float, learners: int = 1) -> None:
    """Nothing is known of the upstream."""
    state.slow = SlowStart(learners, slot=_slot(now_ms))
    state.slow.window = _first(state.slow)
    state.scale = _scale(state.slow.window)


def again(slow: SlowStart) -> None:
    """An upstream that has just recovered is not met with a whole window."""
    slow.window = min(slow.window, _first(slow))


def room(slow: SlowStart) -> bool:
    """Whether one more may be on its way."""
    return slow.young + slow.older < slow.window


def grant(slow: SlowStart) -> None:
    """One more is on its way."""
    slow.young += 1
    slow.used = 2 * (slow.young + slow.older) >= slow.window


def turn(state: "State", now_ms: float, elapsed_ms: float) -> None:
    """Time passes; a window that was not used forgets how much has passed, for the upstream has rested."""
    slow, slots = state.slow, _slot(now_ms) - state.slow.slot
    state.busy_ms += elapsed_ms
    if not slots:
        return
    ripe, slow.older = (slow.older, slow.young) if slots == 1 else (slow.older + slow.young, 0)
    slow.slot, slow.young = _slot(now_ms), 0
    if slow.used:
        _widen(slow, ripe)
    if not slow.used or not 0 < slots <= 2:
        state.busy_ms = state.passed_ms = 0.0
    state.scale = _scale(slow.window)


def ended(slow: SlowStart, granted_at_ms: float, *, passed: bool) -> None:
    """The fate of a call is known."""
    if not slow.window:
        return
    age = slow.slot - _slot(granted_at_ms)
    if age == 0 and slow.young:
        slow.young -= 1
    elif age == 1 and slow.older:
        slow.older -= 1
    else:
        return
    if passed and slow.used:
        _widen(slow, 1)


def told(state: "State", scale: float) -> None:
    """Headers name a limit."""
    if state.slow.window:
        state.slow.window, state.scale = 0.0, min(state.scale, scale)
        state.requests_ms = min(state.requests_ms, 0.0)
        state.tokens_ms = min(state.tokens_ms, state.burst_ms * state.scale)
        state.busy_ms = state.passed_ms = 0.0


def end(state: "State", age_ms: float, since: int) -> float:
    """The first refusal: of a call granted `age_ms` ago, `since` others ago; returns for how long to pause."""
    slow = state.slow
    slow.least = max(SLOWEST, state.passed_ms / (state.busy_ms + 1_000 * BURST_S))
    slow.window, slow.tail_ms, slow.searching = 0.0, max(1.0, age_ms), True
    slow.passed_ms, slow.since_ms = state.passed_ms, state.at_ms - state.busy_ms
    state.scale = state.ceiling = max(slow.least, since * 1_000 / slow.tail_ms)
    state.hold_ms = SEARCH_HOLD_MS
    state.busy_ms = state.passed_ms = state.lenience = 0.0
    return PATIENCE * state.refusal_ms


def refused(state: "State", granted_at_ms: float) -> None:
    """One more of those that were on their way when the slow start ended."""
    slow = state.slow
    if slow.searching and state.cut_at_ms - slow.tail_ms <= granted_at_ms <= state.cut_at_ms:
        state.scale = state.ceiling = max(slow.least, state.scale - 1_000 / slow.tail_ms)


def lone(state: "State") -> None:
    """A lone call goes or is refused, and next to nothing has passed since the last cut."""
    slow = state.slow
    if slow.passed_ms and state.busy_ms > SHUT_MS:
        slow.searching = False
        state.scale = state.ceiling = max(SLOWEST, slow.passed_ms / (state.at_ms - slow.since_ms))


def growth(state: "State") -> float:
    """Of the rate a second, while the limit is searched."""
    return min(SEARCH_MOST, SEARCH_SPEED * _haste(state.slow) * (state.busy_ms - state.hold_ms) / 1_000)


def _haste(slow: SlowStart) -> float:
    return UNHURRIED if slow.learners > 1 else 1.0


def _first(slow: SlowStart) -> float:
    return FIRST * _haste(slow) / slow.learners


def _slot(at_ms: float) -> int:
    return int(at_ms // FATE_MS)


def _scale(window: float) -> float:
    return window * 1_000 / FATE_MS


def _widen(slow: SlowStart, calls: int) -> None:
    of_all, haste = slow.window * slow.learners, _haste(slow)
    slow.window += calls * (1.0 if of_all < LARGE * haste else WIDER * haste if of_all < HUGE * haste else FASTER)
