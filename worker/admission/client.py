"""May this call start now? One budget for the whole fleet, kept by `admission.lua`; one waiting room a lane here.

What decides, in this order, is written at the top of `admission.lua`. Here requests wait for it: first come first
served within a lane, one pump a lane asking for grants in bulk, so that a full room costs no polling storm. Being
deferred spends no attempt and no place in line.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from worker.admission.events import AdmissionEvents, Unheard
from worker.admission.evidence import evidence_of
from worker.admission.grants import Gate, Grant, Limits, NotAdmitted, Reason, Reservation, UpstreamVerdict
from worker.gateway.upstream import Call
from worker.storage.scripts import Script, ScriptRunner

__all__ = ["Admission", "Gate", "Grant", "Limits", "NotAdmitted", "Reason", "Reservation", "UpstreamVerdict"]

ADMISSION: Final = Script.load(
    "admission/lua/pace.lua",
    "admission/lua/admission.lua",
    even_when_full=frozenset({"settle", "throttled", "refused", "learn", "pause", "resume", "limits"}),
)


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
    _hint: float = 0.0
    _in_force: Limits | None = None

    async def grant(self, lane: str, weight: int, asked: list[tuple[str, int]]) -> Grant:
        """Asks for calls in the order given; idempotent by token."""
        pairs = [part for pair in asked for part in pair]
        reply = await self._call("admit", self.lease_ms, self.limits.max_in_flight, self.probe_ms, lane, weight, *pairs)
        granted, wait_ms, reason, code, probe, now_ms, per_second, rpm, tpm, in_flight = reply
        limits = replace(self.limits, requests_per_minute=rpm, tokens_per_minute=tpm, max_in_flight=in_flight)
        grant = Grant(granted, wait_ms, reason.decode(), code.decode(), bool(probe), now_ms, float(per_second), limits)
        self.paused, self._in_force = grant.reason == "paused", limits
        if not self.paused:
            self._note(grant.reason if grant.code else "", grant.code)
        self.events.calls_granted(asked, grant)
        return grant

    async def report(self, reservation: Reservation, call: Call | None) -> None:
        """Gives back what the call did not use, and tells the fleet what it says of the upstream.

        `call` is None where none was made. The script ignores a second report of the same call.
        """
        if call is None:
            await self.settle(reservation, used_tokens=0, called=False)
            return
        evidence = evidence_of(call, gate=reservation.gate)
        used = reservation.tokens if evidence.used_tokens is None else evidence.used_tokens
        await self.settle(reservation, used_tokens=used, called=evidence.sent, verdict=evidence.verdict)
        if evidence.throttled:
            await self.throttled(reservation, evidence.retry_after_s)
        elif evidence.gate:
            await self.refused(reservation, evidence.gate, evidence.code)
        elif evidence.answered:
            await self.learn(call.headers)

    async def settle(
        self, reservation: Reservation, *, used_tokens: int, called: bool = True, verdict: UpstreamVerdict = ""
    ) -> None:
        """Gives back what the call did not use; a second settle does nothing.

        `verdict` tells the breaker how the upstream did: neither `ok` nor `failed` where the call says nothing of it.
        """
        gate = await self._call(
            "settle",
            reservation.token,
            reservation.granted_at_ms,
            reservation.tokens,
            used_tokens,
            int(called),
            verdict,
        )
        self._note(gate.decode(), "upstream_error")

    async def throttled(self, reservation: Reservation, retry_after_s: float | None) -> None:
        """Pauses and slows the whole fleet; a shorter pause never shortens a longer one."""
        wait_ms = round((retry_after_s or 0) * 1000)
        await self._call("throttled", reservation.granted_at_ms, reservation.tokens, wait_ms, self.longest_pause_ms)

    async def refused(self, reservation: Reservation, gate: Gate, code: str) -> None:
        """Shuts the gate, or keeps it shut: from now on one probe at a time."""
        if await self._call("refused", gate, code, reservation.granted_at_ms, self.probe_ms):
            self.events.gate_confirmed(gate, code)

    async def learn(self, headers: Mapping[str, str]) -> None:
        """Takes a request limit that the gateway names as a hint, where none is configured."""
        hint = _positive(headers.get("x-ratelimit-limit-requests"))
        if hint and hint != self._hint and not self.limits.requests_per_minute:
            self._hint = hint
            await self._call("learn", hint)

    async def pause(self) -> None:
        """Stops the whole fleet's calls until `resume`."""
        await self._call("pause")

    async def resume(self) -> None:
        """Ends every pause and opens every gate, at once."""
        await self._call("resume")

    async def override(self, *, rpm: str = "", tpm: str = "", in_flight: str = "") -> None:
        """Changes the whole fleet's limits; an empty string keeps one, `default` returns to the settings."""
        await self._call("limits", rpm, tpm, in_flight)

    def fits(self, tokens: int) -> bool:
        """Whether a request of this size can ever be admitted."""
        return not 0 < (self._in_force or self.limits).tokens_per_minute < tokens

    async def _call(self, command: str, *arguments: str | float) -> Any:
        limits = self.limits
        configured = (limits.requests_per_minute, limits.tokens_per_minute, round(limits.burst_s * 1000))
        return await self.runner.call(ADMISSION, command, self.upstream, *configured, *arguments)

    def _note(self, gate: str, code: str) -> None:
        if gate == self.gate:
            return
        self.gate = gate  # pyright: ignore[reportAttributeAccessIssue]  # the script knows no other gates
        self.events.gate_changed(self.gate, code)


def _positive(text: str | None) -> float:
    try:
        value = float(text or 0)
    except ValueError:
        return 0.0
    return value if math.isfinite(value) and value > 0 else 0.0
