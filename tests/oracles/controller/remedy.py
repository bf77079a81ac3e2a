"""Remedy: whether cutting the rate helps against 429s, where a limit is configured.

A share of 429s that deep cuts do not lower is not of our making: somebody else's storm, or a gateway that refuses some
at any rate. A share that a stranger on the same key causes falls with our rate.
"""

from dataclasses import dataclass

MANY_REFUSED, MOST, LOWER = 3, 0.5, 0.8  # 429s that measure a share; where it is too large to ask; less
LONG, WELL = 40, 0.05  # calls, and a share of them: next to nothing is refused
MEASURED = 20  # calls that measure how deep to cut
DEEPER, DEEPEST = 1.5, 0.5  # x the share, and of the rate: a cut that should have lowered the share


@dataclass(slots=True)
class Remedy:
    """Whether cutting the rate helps against refusals: their share since the last cut, and what it was before."""

    seq: int = 0
    refused: int = 0
    share: float = 0.0
    scale: float = 0.0  # of the rate at which that share was seen


def helps(remedy: Remedy, seq: int, scale: float) -> float | None:
    """The share of calls refused, 0 if it is not known; None where another cut would not help."""
    started, before = max(1, seq - remedy.seq), remedy.share
    share = min(1.0, remedy.refused / started)
    tried = before > 0 and scale <= remedy.scale * max(DEEPEST, 1 - DEEPER * before)
    if tried and remedy.refused < MANY_REFUSED and share < MOST:
        return None  # too few to tell
    lower = not before or share < LOWER * before
    remedy.seq, remedy.refused = seq, 0
    if tried and not lower and share < MOST:
        return None
    if lower:
        remedy.scale = scale
    remedy.share = share if lower else max(share, before)
    return share if started >= MEASURED else 0.0


def passed(remedy: Remedy, seq: int) -> None:
    """Forgets a cut that has helped: next to nothing was refused since."""
    started = seq - remedy.seq
    if started >= LONG and remedy.refused <= WELL * started:
        remedy.seq, remedy.refused, remedy.share = seq, 0, 0.0
