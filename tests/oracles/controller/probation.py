"""Probation: a tenant whose calls come to nothing, while those of others do not, makes room for them.

- A call came to nothing if it brought no answer, for a reason that the fleet does not share. A request is heard once.
- A tenant is on probation while PROVEN more of its latest calls came to nothing than were answered. Answers end it.
- Its requests never wait in front of others. While others wait, all of them together get a call for EACH of the others.
  Otherwise they go if there is room; if there is none they come back later, so that whoever is behind them is seen.
- Where nobody else has asked for LOOK_MS, or a gate is shut for longer, they wait in line like everybody; a fleet
  of one tenant looks once a minute. So does a request of little time left.
- After a gate was shut the trouble may have been everybody's: then one answer ends each probation.
- Among all others the order stays first come, first served.
"""

from dataclasses import dataclass, field

PROVEN = 3
LATEST = 10  # calls of a tenant that count; then both numbers are halved
MOST_ROWS = 16
FORGOTTEN_MS = 60_000
EACH = 10  # a call for each so many of others
LOOK_MS = 10_000
WAITED_MS = 1_500  # those who wait ask once a second
LEAST_LEFT_MS = 10_000
BACK = 2.0  # x the fleet's rate: so fast those who made room come back
LONGEST_MS = 30_000


@dataclass(slots=True)
class Probation:
    """By tenant that had failures: how many of its latest calls came to nothing, and how many were answered."""

    rows: dict[str, tuple[int, int]] = field(default_factory=dict)
    at_ms: float = 0.0  # of the last call that came to nothing
    tenants: set[str] = field(default_factory=set)  # on probation
    share: int = 0  # calls of others, up to EACH, since they made one
    seen_ms: float = 0.0  # when somebody else asked last, or was looked for
    looked_ms: float = 0.0  # when one more was put on probation, and others were looked for
    waiting_ms: float = 0.0  # when somebody else last had to wait
    back_ms: float = 0.0  # when the last of those who made room comes back


def outside(probation: Probation, tenant: str) -> bool:
    """Whether all failures are those of tenants on probation, and this tenant had none."""
    return bool(probation.tenants) and probation.tenants == probation.rows.keys() and tenant not in probation.rows


def came_to_nothing(probation: Probation, now_ms: float, tenant: str) -> None:
    """Counts the first such call of a request."""
    rows = probation.rows
    if now_ms - probation.at_ms > FORGOTTEN_MS:
        rows.clear()
    if tenant not in rows and len(rows) >= MOST_ROWS:
        del rows[min(rows, key=lambda other: (rows[other][0], other))]
    failed, good = rows.get(tenant, (0, 0))
    rows[tenant], probation.at_ms = _latest(failed + 1, good), now_ms
    _judge(probation, now_ms)


def answered(probation: Probation, now_ms: float, tenant: str) -> None:
    """Counts an answer to a tenant that had failures."""
    rows = probation.rows
    if now_ms - probation.at_ms > FORGOTTEN_MS:
        forget(probation)
    elif tenant in rows:
        failed, good = rows[tenant]
        rows[tenant] = _latest(failed, good + 1)
        if not rows[tenant][0]:
            del rows[tenant]
        _judge(probation, now_ms)


def forget(probation: Probation) -> None:
    """All are as good as new."""
    probation.rows.clear()
    probation.tenants.clear()


def pardon(probation: Probation) -> None:
    """The trouble may have been everybody's: one answer ends each probation."""
    probation.rows = dict.fromkeys(probation.tenants, (PROVEN, 0))


def _latest(failed: int, good: int) -> tuple[int, int]:
    return (failed // 2, good // 2) if failed + good > LATEST else (failed, good)


def _judge(probation: Probation, now_ms: float) -> None:
    proven = {tenant for tenant, (failed, good) in probation.rows.items() if failed - good >= PROVEN}
    if not probation.tenants:
        probation.share = 0
    first = not probation.looked_ms or now_ms - probation.looked_ms > FORGOTTEN_MS
    if proven - probation.tenants and first:
        probation.seen_ms = probation.looked_ms = now_ms
    probation.tenants = proven


def see(probation: Probation, now_ms: float, tenant: str) -> None:
    """Notes that a tenant asks for a call."""
    if probation.tenants and tenant not in probation.tenants:
        probation.seen_ms = now_ms


def waits(probation: Probation, now_ms: float, tenant: str) -> None:
    """Notes that a tenant has to wait."""
    if probation.tenants and tenant not in probation.tenants:
        probation.waiting_ms = now_ms


def makes_room(probation: Probation, now_ms: float, tenant: str, left_ms: float) -> bool:
    """Whether its request comes back later rather than wait in line."""
    others = now_ms - probation.seen_ms <= LOOK_MS
    return tenant in probation.tenants and others and left_ms >= LEAST_LEFT_MS


def yields(probation: Probation, now_ms: float) -> bool:
    """Whether those who make room leave their turn to others who wait."""
    return now_ms - probation.waiting_ms <= WAITED_MS and probation.share < EACH


def back_in_ms(probation: Probation, now_ms: float, per_s: float) -> float:
    """The time after which the next of those who make room comes back."""
    due_ms = max(probation.back_ms, now_ms) + 1_000 / (BACK * per_s)
    probation.back_ms = min(due_ms, now_ms + LONGEST_MS)
    return probation.back_ms - now_ms


def start(probation: Probation, tenant: str) -> None:
    """A call starts: one of a tenant on probation uses the share up, any other adds to it."""
    if tenant in probation.tenants:
        probation.share = max(0, probation.share - EACH)
    elif probation.tenants:
        probation.share = min(EACH, probation.share + 1)
