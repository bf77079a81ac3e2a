"""The commands of the admission script, as `admission.lua` implements them.

All may write when Redis is full: a backlog drains only while requests are admitted, and what a call used, and that the
upstream is broken, must be known.
"""

from typing import Final, NamedTuple

from worker.storage.commands import Command, Kind, Rows, Script
from worker.storage.replies import number, record

KEYS: Final = ("quota", "permits")
LIMITS: Final[dict[str, Kind]] = {"rpm": int, "tpm": int, "burst_ms": int}
"""What every command gets: the limits that this process' settings name. Requests and tokens a minute; ms."""


class Admitted(NamedTuple):
    """How many may start, and why not more; the limits in force for the whole fleet."""

    granted: int
    wait_ms: int
    reason: str
    code: str
    probe: int
    now_ms: int
    per_second: float
    requests_per_minute: int
    tokens_per_minute: int
    max_in_flight: int


class Reported(NamedTuple):
    """The gate after the report, and whether this call was the one that confirmed it."""

    gate: str
    code: str
    confirmed: int


ADMIT: Final = Command(
    name="admit",
    keys=KEYS,
    args={**LIMITS, "lease_ms": int, "max_in_flight": int, "probe_ms": int, "lane": str, "weight": int},
    rows=Rows("asked", args={"token": str, "tokens": int}),
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
        "reserved": int,
        "used": int,
        "called": bool,
        "health": str,
        "limit_rpm": float | None,
        "retry_after_ms": int | None,
        "longest_pause_ms": int,
        "gate": str,
        "code": str,
        "probe_ms": int,
    },
    reply=record(Reported),
    even_when_full=True,
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

ADMISSION: Final = Script.load(
    "admission/lua/pace.lua", "admission/lua/admission.lua", commands=(ADMIT, REPORT, PAUSE, RESUME, OVERRIDE)
)
