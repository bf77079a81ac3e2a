"""Whether a call may start now: one budget for the whole fleet, kept by `admission.lua`.

The order of its decision is at the top of `admission.lua`. Waiting for it costs no attempt and no place in line; the
waiting itself is in `admission_queue.py`.
"""

from dataclasses import dataclass, field, replace

from worker.admission import evidence
from worker.admission.commands import ADMISSION, ADMIT, OVERRIDE, PAUSE, REPORT, RESUME
from worker.admission.events import AdmissionEvents, Unheard
from worker.admission.evidence import Evidence
from worker.admission.grants import Gate, Grant, Limits, Reservation
from worker.gateway.upstream import Call
from worker.storage import keys
from worker.storage.commands import Row
from worker.storage.scripts import ScriptRunner


@dataclass(slots=True, kw_only=True)
class Admission:
    """The script's commands, typed."""

    runner: ScriptRunner
    limits: Limits
    lease_ms: int
    longest_pause_ms: int
    probe_ms: int
    upstream: str = "default"
    events: AdmissionEvents = field(default_factory=Unheard)
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
        self.events.calls_granted(asked, grant)
        return grant

    async def heard(self, reservation: Reservation) -> None: ...

    async def report(self, reservation: Reservation, call: Call | None) -> bool:
        """Ends a reservation and tells the fleet what the call used and what it says of the upstream.

        None is a call that was never made: its whole reservation is given back. A second report does nothing.
        """
        await self.tell(reservation, evidence.read(call, reserved=reservation.tokens, probing=reservation.gate))
        return True

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
            self.events.gate_confirmed(said.gate, said.code)

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
        self.events.gate_changed(self.gate, code)
