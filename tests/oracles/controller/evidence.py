"""Evidence: when the experience of one request says something about the whole fleet.

- A call that the upstream refused, or broke, is counted in the tally of its kind. A request is heard once: its later
  refusals, and those of another request with the same body in a row, add nothing, while other bodies are asked for.
- A tally weighs refusals against the first calls of requests that *started*: each refusal adds 1, each call started
  since takes `drift` away, and the score never falls below 0. Calls that are still running count as well as those that
  ended, so quick failures do not outvote slow successes. A score of `height` means that more than `drift` of the calls
  meet this.
- A tally concerns the fleet only if it would without the tenant that suffers most: where other tenants are active,
  `others` of their calls must have met it too and, for the kinds in which one refusal is the opposite of a success,
  more of their calls than were answered. Where nobody else is active, the tenant speaks for the fleet.
- For a refused key or wallet, a success of another request that started later ends the tally: the refusal was its own.
- Slow refusals come out of order. Where the score would have fallen below 0 because of calls that started meanwhile,
  those of them that are refused later do not add until that is made up for (`owed`).
- A tally with no news for a minute forgets who was refused and answered; its score is a matter of calls, not of time.
"""

from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["authentication", "quota", "failed", "throttled", "told", "overloaded", "slow"]

FORGOTTEN_MS = 60_000
MOST_TENANTS = 16  # a tally's table; further tenants share the row of the rest
REST = "~"


@dataclass(frozen=True, slots=True)
class Rule:
    """The evidence that makes a kind of refusal believed."""

    drift: float
    height: float
    others: int
    outvoted: bool = False  # others' successes count against it
    crowd: int = 0  # so many requests of one tenant are believed whatever the others say; 0: never
    absolved: bool = False  # one later success of another request ends it
    late: bool = False  # may take so long that calls started later have ended


RULES: dict[Kind, Rule] = {
    # Two calls started one after the other: a dead key refuses every call, and a probe follows within a second.
    "authentication": Rule(drift=0.5, height=1.5, others=1, outvoted=True, absolved=True),
    "quota": Rule(drift=0.5, height=1.5, others=1, outvoted=True, absolved=True),
    # More than half of the calls started: twenty in a row, or a hundred at 60 %.
    "failed": Rule(drift=0.5, height=10, others=3, outvoted=True, late=True),
    # Any second request: pace.py forgives what comes alone.
    "throttled": Rule(drift=0.01, height=1.5, others=1, crowd=5),
    # A stated wait stops everybody, as a dead key does, so it takes as much.
    "told": Rule(drift=0.5, height=1.5, others=1, outvoted=True, absolved=True),
    # More than 15 % of the calls: fewer fit into the retry budget.
    "overloaded": Rule(drift=0.15, height=4, others=1),
    "slow": Rule(drift=0.2, height=3, others=1),
}


@dataclass(slots=True)
class Tally:
    """One kind's hash: `score`, `seq`, `body`, `at_ms`; per tenant `r:<tenant>` refused and `o:<tenant>` answered."""

    score: float = 0.0
    seq: int = 0  # of the latest start that was weighed
    body: str = ""  # of the last refused
    at_ms: float = 0.0
    owed: float = 0.0  # by refusals of calls that started before `seq`
    refused: dict[str, int] = field(default_factory=dict)
    answered: dict[str, int] = field(default_factory=dict)


def row(tally: Tally, tenant: str) -> str:
    """The tenant's row in the table, which is bounded."""
    known = tenant in tally.refused or tenant in tally.answered
    return tenant if known or len(tally.refused) + len(tally.answered) < MOST_TENANTS else REST


def refuse(  # the arguments of the script's function
    tally: Tally, rule: Rule, now_ms: float, seq: int, in_flight: int, tenant: str, body: str, *, other_bodies: bool
) -> bool:
    """Weighs the first refusal of a request; False if the one before it had the same body and others are asked for."""
    score = tally.score - rule.drift * max(0, seq - tally.seq)
    if score < 0 or now_ms - tally.at_ms > FORGOTTEN_MS:
        owed = min(tally.owed - score, rule.drift * in_flight) if rule.late and score < 0 else 0.0
        score, before = max(0.0, score), tally.seq
        forget(tally)
        tally.seq, tally.owed = before, owed
    if body == tally.body and other_bodies:
        return False
    makes_up = seq < tally.seq and tally.owed >= 1
    tally.score = score + (not makes_up)
    tally.owed -= makes_up
    tally.seq, tally.body, tally.at_ms = max(seq, tally.seq), body, now_ms
    tenant = row(tally, tenant)
    tally.refused[tenant] = tally.refused.get(tenant, 0) + 1
    return True


def answer(tally: Tally, rule: Rule, now_ms: float, seq: int, tenant: str, body: str) -> None:
    """Weighs a success of any request."""
    if not tally.score:
        return
    old = now_ms - tally.at_ms > FORGOTTEN_MS
    if rule.absolved and body != tally.body and seq > tally.seq:
        forget(tally)
        return
    if old:
        if tally.score < rule.drift * (seq - tally.seq):
            forget(tally)
        return
    tenant = row(tally, tenant)
    tally.answered[tenant] = tally.answered.get(tenant, 0) + 1


def forget(tally: Tally) -> None:
    """Nothing was ever refused."""
    tally.score, tally.seq, tally.body, tally.at_ms, tally.owed = 0.0, 0, "", 0.0, 0.0
    tally.refused.clear()
    tally.answered.clear()


def believed(tally: Tally, rule: Rule, *, others_active: bool) -> bool:
    """Whether the tally speaks for the fleet."""
    if tally.score < rule.height:
        return False
    worst = max(tally.refused, key=lambda tenant: (tally.refused[tenant], tenant))
    refused = sum(tally.refused.values()) - tally.refused[worst]
    answered = sum(tally.answered.values()) - tally.answered.get(worst, 0)
    if not (others_active or refused or answered):
        return True
    if rule.crowd and tally.refused[worst] >= rule.crowd and tally.answered.get(worst, 0):
        return True
    return refused >= rule.others and (refused > answered or not rule.outvoted)


@dataclass(slots=True)
class Latest:
    """The two tenants, or bodies, seen last: enough to know whether any but a given one is active."""

    last: str = ""
    last_ms: float = 0.0
    before: str = ""
    before_ms: float = 0.0


def see(tenants: Latest, now_ms: float, tenant: str) -> None:
    """Notes that the tenant asks for calls, or that the body is asked for."""
    if tenant != tenants.last:
        tenants.before, tenants.before_ms, tenants.last = tenants.last, tenants.last_ms, tenant
    tenants.last_ms = now_ms


def others_active(tenants: Latest, now_ms: float, tenant: str) -> bool:
    """Whether another tenant asked, or another body was asked for, within the last minute."""
    seen_ms = tenants.before_ms if tenants.last == tenant else tenants.last_ms
    return seen_ms > 0 and now_ms - seen_ms <= FORGOTTEN_MS
