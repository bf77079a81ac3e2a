"""May this call start now? One budget for the whole fleet, kept by `admission.lua`; one waiting room a lane here.

What decides, in this order, is written at the top of `admission.lua`. Here requests wait for it: first come first
served within a lane, one pump a lane asking for grants in bulk, so that a full room costs no polling storm. Being
deferred spends no attempt and no place in line.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final, Literal

from worker.storage.scripts import Script, ScriptRunner

ADMISSION: Final = Script.load(
    "admission/lua/pace.lua",
    "admission/lua/admission.lua",
    even_when_full=frozenset({"settle", "throttled", "refused", "learn", "pause", "resume", "limits"}),
)

Gate = Literal["", "authentication_failed", "quota_exhausted", "breaker_open"]
"""A state of the upstream in which only probes are called."""


UpstreamVerdict = Literal["ok", "failed", ""]
"""What a call says of the upstream's health; nothing where it only says something of the request."""


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
        self.on_grant(asked, grant)
        return grant

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
            self.on_confirmed(gate, code)

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
        self.on_gate(self.gate, code)


def _positive(text: str | None) -> float:
    try:
        value = float(text or 0)
    except ValueError:
        return 0.0
    return value if math.isfinite(value) and value > 0 else 0.0
