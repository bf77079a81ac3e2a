"""Whether a call may start now: one budget for the whole fleet, kept by `admission.lua`.

The order of its decision is at the top of `admission.lua`. Waiting for it costs no attempt and no place in line; the
waiting itself is in `admission_queue.py`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from worker.admission import evidence
from worker.admission.commands import ADMISSION, ADMIT, OVERRIDE, PAUSE, REPORT, RESUME
from worker.admission.evidence import Evidence, Gate
from worker.storage import keys
from worker.storage.commands import Row
from worker.storage.scripts import ScriptRunner

if TYPE_CHECKING:
    from worker.gateway.upstream import Call

__all__ = ["Admission", "Gate", "Grant", "Limits", "NotAdmitted", "Reason", "Reservation"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What the gateway allows, as far as known; 0 = unknown."""

    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    max_in_flight: int = 0
    burst_s: float = 2.0


@dataclass(frozen=True, slots=True)
class Reservation:
    """The right to make one call now; `tokens` were set aside for it. Times in ms of server time."""

    token: str
    tokens: int
    waited_ms: int
    granted_at_ms: int
    gate: Gate = ""
    """Set on a probe: the gate that this call tries."""


class Reason(StrEnum):
    """Why a request was not admitted."""

    TIME = "time"
    """Its deadline came while it waited for the budget."""
    NEVER = "never"
    """Its tokens exceed a whole minute's budget."""
    GATE = "gate"
    """The upstream is out of order, for longer than the request may wait for that."""


@dataclass(frozen=True, slots=True)
class NotAdmitted:
    reason: Reason
    waited_ms: int
    code: str = ""
    """With Reason.GATE: the error code of the upstream's state."""


@dataclass(frozen=True, slots=True)
class Grant:
    """One answer of the script: how many may start, and why not more."""

    granted: int
    wait_ms: int
    reason: str
    code: str
    probe: bool
    now_ms: int
    per_second: float
    limits: Limits
    """In force for the whole fleet: what operators set at run time, else this process' settings."""


@dataclass(slots=True, kw_only=True)
class Admission:
    """The script's commands, typed."""

    runner: ScriptRunner
    limits: Limits
    lease_ms: int
    longest_pause_ms: int
    probe_ms: int
    upstream: str = "default"
    on_gate: Callable[[Gate, str], None] = lambda _gate, _code: None
    """Hears of every change of the gate that this process learns of."""
    on_grant: Callable[[Sequence[tuple[str, int]], Grant], None] = lambda _asked, _grant: None
    """Hears what was asked for and what the script said."""
    on_confirmed: Callable[[Gate, str], None] = lambda _gate, _code: None
    """Hears once per outage, in one process of the fleet, that a second call met the same dead key or wallet."""
    gate: Gate = ""
    paused: bool = False
    """By an operator."""
    _hint: float | None = None
    _in_force: Limits | None = None

    async def grant(self, lane: str, weight: int, asked: list[tuple[str, int]]) -> Grant:
        """Asks for calls in the order given; idempotent by token."""
        found = await self.runner.call(
            ADMISSION,
            ADMIT,
            keys.upstream(self.upstream),
            [Row({}, {"token": token, "tokens": tokens}) for token, tokens in asked],
            **self._limits(),
            lease_ms=self.lease_ms,
            max_in_flight=self.limits.max_in_flight,
            probe_ms=self.probe_ms,
            lane=lane,
            weight=weight,
        )
        in_force = replace(
            self.limits,
            requests_per_minute=found.requests_per_minute,
            tokens_per_minute=found.tokens_per_minute,
            max_in_flight=found.max_in_flight,
        )
        grant = Grant(
            granted=found.granted,
            wait_ms=found.wait_ms,
            reason=found.reason,
            code=found.code,
            probe=bool(found.probe),
            now_ms=found.now_ms,
            per_second=found.per_second,
            limits=in_force,
        )
        self.paused, self._in_force = grant.reason == "paused", in_force
        if not self.paused:
            self._note(grant.reason if grant.code else "", grant.code)
        self.on_grant(asked, grant)
        return grant

    async def report(self, reservation: Reservation, call: "Call | None") -> None:
        """Ends a reservation and tells the fleet what the call used and what it says of the upstream.

        None is a call that was never made: its whole reservation is given back. A second report does nothing.
        """
        await self.tell(reservation, evidence.read(call, reserved=reservation.tokens, probing=reservation.gate))

    async def abandon(self, reservation: Reservation) -> None:
        """Ends the reservation of a call that was broken off: it may have used all it reserved, and says nothing."""
        await self.tell(reservation, Evidence(used_tokens=reservation.tokens))

    async def tell(self, reservation: Reservation, said: Evidence) -> None:
        """Takes what a call came to, as read already; `report` and `abandon` end here."""
        found = await self.runner.call(
            ADMISSION,
            REPORT,
            keys.upstream(self.upstream),
            **self._limits(),
            token=reservation.token,
            granted_at=reservation.granted_at_ms,
            reserved=reservation.tokens,
            used=said.used_tokens,
            called=said.called,
            health=said.health,
            limit_rpm=self._news(said.limit_rpm),
            retry_after_ms=round(said.retry_after_s * 1000) if said.throttled else None,
            longest_pause_ms=self.longest_pause_ms,
            gate=said.gate,
            code=said.code,
            probe_ms=self.probe_ms,
        )
        self._note(found.gate, found.code)
        if found.confirmed:
            self.on_confirmed(said.gate, said.code)

    async def pause(self) -> None:
        """Stops the whole fleet's calls until `resume`."""
        await self.runner.call(ADMISSION, PAUSE, keys.upstream(self.upstream), **self._limits())

    async def resume(self) -> None:
        """Ends every pause and opens every gate, at once."""
        await self.runner.call(ADMISSION, RESUME, keys.upstream(self.upstream), **self._limits())

    async def override(self, *, rpm: str = "", tpm: str = "", in_flight: str = "") -> None:
        """Changes the whole fleet's limits; an empty string keeps one, `default` returns to the settings."""
        await self.runner.call(
            ADMISSION,
            OVERRIDE,
            keys.upstream(self.upstream),
            **self._limits(),
            limit_rpm=rpm,
            limit_tpm=tpm,
            limit_in_flight=in_flight,
        )

    def fits(self, tokens: int) -> bool:
        """Whether a request of this size can ever be admitted."""
        return not 0 < (self._in_force or self.limits).tokens_per_minute < tokens

    def _news(self, limit_rpm: float | None) -> float | None:
        """A limit that headers name is told once, and only where no limit is configured."""
        if limit_rpm == self._hint or self.limits.requests_per_minute:
            return None
        self._hint = limit_rpm or self._hint
        return limit_rpm

    def _limits(self) -> dict[str, int]:
        limits = self.limits
        return {
            "rpm": limits.requests_per_minute,
            "tpm": limits.tokens_per_minute,
            "burst_ms": round(limits.burst_s * 1000),
        }

    def _note(self, gate: str, code: str) -> None:
        if gate == self.gate:
            return
        self.gate = gate  # pyright: ignore[reportAttributeAccessIssue]  # the script knows no other gates
        self.on_gate(self.gate, code)
