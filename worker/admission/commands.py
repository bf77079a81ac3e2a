"""The commands of the admission script, as `lua/admission.lua` implements them.

All may write when Redis is full: a backlog drains only while requests are admitted, and what a call used, and that the
upstream is broken, must be known.
"""

from typing import Final, NamedTuple

from worker.storage import keys
from worker.storage.commands import Command, Kind, Rows, Script
from worker.storage.replies import number, record

KEYS: Final = keys.UPSTREAM
LIMITS: Final[dict[str, Kind]] = {"rpm": int, "tpm": int, "burst_ms": int}
"""The arguments of every command: the limits that this process' settings name. Requests and tokens a minute; ms."""


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
    """Two parts for each request: go, wait, late or later; and its number with go, the time it needs with late."""


class Reported(NamedTuple):
    """The gate after the report, whether this call confirmed it, and whether its refusal is shared by the fleet."""

    gate: str
    code: str
    confirmed: int
    shared: int


ADMIT: Final = Command(
    name="admit",
    keys=KEYS,
    args={**LIMITS, "lease_ms": int, "max_in_flight": int, "lane": str, "weight": int},
    rows=Rows(
        "asked",
        args={
            "token": str,
            "tokens": int,
            "tenant": str,
            "body": str,
            "kind": str,
            "enqueued_at": int,
            "ends": int,
            "failures": int,
        },
    ),
    reply=record(Admitted),
    even_when_full=True,
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
        "tenant": str,
        "body": str,
        "kind": str,
        "again": bool,
        "verdict": str,
        "called": bool,
        "reserved": int,
        "used": int,
        "limit_rpm": float | None,
        "retry_after_ms": int,
        "longest_pause_ms": int,
        "code": str,
        "probe_ms": int,
    },
    reply=record(Reported),
    even_when_full=True,
)
HEARD: Final = Command(
    name="heard", keys=KEYS, args={**LIMITS, "granted_at": int}, reply=record(Reported), even_when_full=True
)
PAUSE: Final = Command(name="pause", keys=KEYS, args=LIMITS, reply=number, even_when_full=True)
RESUME: Final = Command(name="resume", keys=KEYS, args=LIMITS, reply=number, even_when_full=True)
OVERRIDE: Final = Command(
    name="limits",
    keys=KEYS,
    args={**LIMITS, "limit_rpm": str, "limit_tpm": str, "limit_in_flight": str},
    reply=number,
    even_when_full=True,
)

PARTS: Final = ("state", "pace", "evidence", "overload", "gate", "admit", "report", "admission")
"""Of the script, in this order: each uses what the parts before it define."""

ADMISSION: Final = Script.load(
    *(f"admission/lua/{part}.lua" for part in PARTS),
    commands=(ADMIT, REPORT, HEARD, PAUSE, RESUME, OVERRIDE),
)
