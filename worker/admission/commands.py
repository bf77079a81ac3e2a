"""The commands of the admission script, as the files in `lua` implement them.

All may write when Redis is full: a backlog drains only while requests are admitted, and what a call used, and that the
upstream is broken, must be known.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple, cast

from worker.admission.grants import Gate, Limits
from worker.storage import keys
from worker.storage.commands import Command, Kind, Rows, Script
from worker.storage.parts import Part
from worker.storage.replies import number, record

KEYS: Final = keys.UPSTREAM
LIMITS: Final[dict[str, Kind]] = {"rpm": int, "tpm": int, "burst_ms": int}
"""The arguments of every command: the limits that this process' settings name. Requests and tokens a minute; ms."""


ASKED: Final[dict[str, Kind]] = {
    "token": str,
    "tokens": int,
    "tenant": str,
    "body": str,
    "kind": str,
    "enqueued_at": int,
    "ends": int,
    "failures": int,
}
"""The facts of one request."""
SAID: Final[dict[str, Kind]] = {
    "tenant": str,
    "body": str,
    "kind": str,
    "again": bool,
    "verdict": str,
    "called": bool,
    "reserved": int,
    "used": int,
    "limit_rpm": float | None,
    "took_ms": int | None,
    "retry_after_ms": int,
    "longest_pause_ms": int,
    "code": str,
    "probe_ms": int,
}
"""The facts of the end of one call."""


class Admitted(NamedTuple):
    """The state of the upstream, the limits in force for the whole fleet, and the answer to each request."""

    wait_ms: int
    reason: str
    gate: str
    code: str
    confirmed_at_ms: int
    probe: int
    now_ms: int
    per_second: float
    requests_per_minute: int
    tokens_per_minute: int
    max_in_flight: int
    answers: tuple[bytes | int, ...]
    """Two parts for each request: go, wait, late or later; and its number with go, the time it needs with late, the
    time to stay away with later."""


class Reported(NamedTuple):
    """The gate after the report, whether this call confirmed it, and whether its refusal is shared by the fleet."""

    gate: str
    code: str
    confirmed: int
    shared: int


class Told(NamedTuple):
    """The callers' knowledge of one state: its gate, and the limits in force for the whole fleet."""

    gate: Gate
    code: str
    confirmed_at_ms: int
    paused: bool
    requests_per_minute: int
    tokens_per_minute: int
    max_in_flight: int

    @classmethod
    def unseen(cls, limits: Limits) -> "Told":
        """Before the script has told anything."""
        return cls("", "", 0, False, limits.requests_per_minute, limits.tokens_per_minute, limits.max_in_flight)


class Blocked(NamedTuple):
    """The requests for a model that wait. `since_ms`: when every route for it was known to be out of order, or 0."""

    model: str
    wait_ms: int
    reason: str
    since_ms: int
    code: str


class Routed(NamedTuple):
    """The states asked about, the models whose requests wait, and the answer to each request."""

    now_ms: int
    per_second: float
    told: list[Told]
    blocked: list[Blocked]
    answers: list[list[Any]]
    """go, the number of the way, whether it is a probe, calls started by route, account and model; or wait, late, later
    and the time needed."""


class ReportedByRoute(NamedTuple):
    confirmed: bool
    shared: bool
    gates: list[tuple[Gate, str]]
    """Gate and code of each state of the way."""


def _gate(name: bytes) -> Gate:
    return cast("Gate", name.decode())  # the script knows no other gates


def _routed(reply: Sequence[Any]) -> Routed:
    now_ms, per_second, told, blocked, answers = reply
    return Routed(
        int(now_ms),
        float(per_second),
        [Told(_gate(gate), code.decode(), at, bool(paused), *limits) for gate, code, at, paused, *limits in told],
        [
            Blocked(model.decode(), wait_ms, why.decode(), at, code.decode())
            for model, wait_ms, why, at, code in blocked
        ],
        answers,
    )


def _reported_by_route(reply: Sequence[Any]) -> ReportedByRoute:
    confirmed, shared, gates = reply
    return ReportedByRoute(bool(confirmed), bool(shared), [(_gate(gate), code.decode()) for gate, code in gates])


ADMIT: Final = Command(
    name="admit",
    keys=KEYS,
    args={**LIMITS, "lease_ms": int, "max_in_flight": int, "lane": str, "weight": int},
    rows=Rows("asked", args=ASKED),
    reply=record(Admitted),
    even_when_full=True,
    first=True,
)
REPORT: Final = Command(
    name="report",
    keys=KEYS,
    args={
        **LIMITS,
        "token": str,
        "granted_at": int,
        "seq": int,
        "probe": bool,
        **SAID,
    },
    reply=record(Reported),
    even_when_full=True,
)
HEARD: Final = Command(
    name="heard", keys=KEYS, args={**LIMITS, "granted_at": int}, reply=record(Reported), even_when_full=True
)
_OF_A_STATE: Final[dict[str, Kind]] = {"rpm": int, "tpm": int, "learners": int}
ADMIT_BY_ROUTE: Final = Command(
    name="admit_by_route",
    args={"burst_ms": int, "lease_ms": int, "lane": str, "weight": int, "ways": str},
    groups=Rows("states", keys=KEYS, args={**_OF_A_STATE, "max_in_flight": int, "paced": bool}),
    rows=Rows("asked", args={**ASKED, "model": str, "tried": str, "moving": bool, "keeps": str}),
    reply=_routed,
    even_when_full=True,
    first=True,
)
_PARTS_OF_A_WAY: Final = Rows("states", keys=KEYS, args={**_OF_A_STATE, "seq": int, "role": str})
REPORT_BY_ROUTE: Final = Command(
    name="report_by_route",
    args={
        "burst_ms": int,
        "token": str,
        "granted_at": int,
        "probe": bool,
        "gate": str,
        **SAID,
        "gone": str,
    },
    rows=_PARTS_OF_A_WAY,
    reply=_reported_by_route,
    even_when_full=True,
)
HEARD_BY_ROUTE: Final = Command(
    name="heard_by_route",
    args={"burst_ms": int, "granted_at": int},
    rows=_PARTS_OF_A_WAY,
    reply=_reported_by_route,
    even_when_full=True,
)
RENEW_PERMITS: Final = Command(
    name="renew_permits",
    args={"lease_ms": int},
    groups=Rows("states", keys=("permits",)),
    rows=Rows("held", args={"token": str}),
    reply=number,
    even_when_full=True,
)
PAUSE: Final = Command(
    name="pause",
    keys=KEYS,
    args={**LIMITS, "for_ms": int, "by": str, "why": str},
    reply=number,
    even_when_full=True,
)
RESUME: Final = Command(name="resume", keys=KEYS, args=LIMITS, reply=number, even_when_full=True)
OVERRIDE: Final = Command(
    name="limits",
    keys=KEYS,
    args={**LIMITS, "limit_rpm": str, "limit_tpm": str, "limit_in_flight": str},
    reply=number,
    even_when_full=True,
)

_ASK: Final = (ADMIT, ADMIT_BY_ROUTE)
_END: Final = (REPORT, REPORT_BY_ROUTE)
_OTHER: Final = (HEARD, HEARD_BY_ROUTE, PAUSE, RESUME, OVERRIDE)


def _lua(*names: str) -> tuple[str, ...]:
    return tuple(f"admission/lua/{name}.lua" for name in names)


PARTS: Final = (
    Part(
        (*_ASK, *_END, *_OTHER),
        (
            *_lua("state", "slow_start", "pace", "evidence", "probation", "overload", "gate"),
            Part(_ASK, (*_lua("place", "choice", "admit"), Part((ADMIT_BY_ROUTE,), _lua("routes")))),
            Part(_END, _lua("report")),
            Part((REPORT_BY_ROUTE, HEARD_BY_ROUTE), _lua("routes_report")),
            Part(_OTHER, _lua("admission")),
        ),
    ),
    *_lua("permits"),
)
"""Of the script, in this order: each uses what the parts before it define."""

ADMISSION: Final = Script.load(*PARTS, commands=(*_ASK, *_END, *_OTHER, RENEW_PERMITS))
