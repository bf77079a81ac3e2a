"""Lanes share the budget by weight: the lane that is behind goes first.

A lane has virtual time spent, and a time until which it keeps its claim after it was told to wait. A lane that did not
wait starts at the virtual time of the last grant: idling earns it no credit, and the others no debt for having been
alone.
"""

from dataclasses import dataclass

LEAD_MS = 100  # how far a lane may run ahead of one that waits: a few polls, or high rates would starve
GRACE_MS = 250  # a lane that was told to wait keeps its claim this much longer
TURN_MS, LONGEST_TURN_MS = 50, 1_000  # at most between two processes that come back; until the last of them does


@dataclass(slots=True)
class Lane:
    """A lane's claim on the budget."""

    spent_ms: float = 0.0  # virtual time: nominal ms granted / weight
    wanting_until_ms: float = 0.0


def claim(all_lanes: dict[str, Lane], mine: Lane, now_ms: float, virtual_ms: float) -> float:
    """Starts the lane's claim; the least virtual time among the other lanes that wait."""
    if mine.wanting_until_ms <= now_ms:
        mine.spent_ms = max(mine.spent_ms, virtual_ms)
    waiting = (o.spent_ms for o in all_lanes.values() if o is not mine and o.wanting_until_ms > now_ms)
    return min(waiting, default=float("inf"))


def last_turn(mine: Lane) -> float:
    """The last time at which a process of the lane was told to come back."""
    return mine.wanting_until_ms - GRACE_MS


def turn(last_ms: float, now_ms: float, wait_ms: float, earned_ms: float) -> float:
    """The wait of one more process, for which what it asks for is earned in so many ms."""
    return max(wait_ms, min(last_ms + min(TURN_MS, earned_ms) - now_ms, LONGEST_TURN_MS))


def wait(mine: Lane, now_ms: float, wait_ms: float) -> None:
    """Keeps the claim of a lane that is told to come back."""
    mine.wanting_until_ms = now_ms + min(wait_ms, LONGEST_TURN_MS) + GRACE_MS
