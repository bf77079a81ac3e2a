"""Whether a call may start now: one budget for the whole fleet, kept by the script in `lua`.

The order of its decision is at the top of `lua/admit.lua`, and what a call's end says of the fleet at the top of
`lua/report.lua`. Waiting costs no attempt and no place in line; the waiting itself is in `admission_queue.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from hashlib import sha256
from typing import Final, cast

from worker.admission import evidence
from worker.admission.commands import ADMISSION, ADMIT, HEARD, OVERRIDE, PAUSE, REPORT, RESUME, Admitted
from worker.admission.events import AdmissionEvents, Unheard
from worker.admission.evidence import Evidence
from worker.admission.grants import AHEAD_S, Answer, Ask, Gate, Grant, Limits, Reservation, Word
from worker.gateway.upstream import Call
from worker.storage import keys
from worker.storage.commands import Argument, Row
from worker.storage.scripts import ScriptRunner

_WORDS: Final[Mapping[bytes | int, Word]] = {b"go": "go", b"wait": "wait", b"late": "late", b"later": "later"}


@dataclass(slots=True, kw_only=True)
class Admission:
    """The script's commands, typed."""

    runner: ScriptRunner
    limits: Limits
    lease_ms: int
    longest_pause_ms: int
    probe_ms: int
    upstream: str = "default"
    route: str = "default"
    events: AdmissionEvents = field(default_factory=Unheard)
    ahead_s: float = AHEAD_S
    gate: Gate = ""
    paused: bool = False
    """By an operator."""
    _hint: float | None = None
    _in_force: Limits | None = None

    async def grant(self, lane: str, weight: int, asked: Sequence[Ask]) -> Grant:
        """Asks for calls in the order given; idempotent by token."""
        found = await self.runner.call(
            ADMISSION,
            ADMIT,
            keys.upstream(self.upstream),
            [row_of(ask) for ask in asked],
            **self._limits(),
            lease_ms=self.lease_ms,
            max_in_flight=self.limits.max_in_flight,
            lane=lane,
            weight=weight,
        )
        grant = _grant(found, self.limits, self.route)
        self.paused, self._in_force = grant.reason == "paused", grant.limits
        if not self.paused:
            self._note(found.gate, found.code)
        self.events.calls_granted(asked, grant)
        return grant

    async def report(self, reservation: Reservation, call: Call | None) -> bool:
        """Ends a reservation and tells the fleet what the call used and what it says of the upstream.

        Returns True where the fleet shares a refusal, and False where it is the request's own. None is a call that was
        never made: its whole reservation is given back. A second report does nothing and gets the same answer.
        """
        return await self.tell(reservation, evidence.read(call, reserved=reservation.tokens))

    async def abandon(self, reservation: Reservation) -> None:
        """Ends the reservation of a call that was broken off: it may have used all it reserved, and says nothing."""
        await self.tell(reservation, Evidence(verdict="cut_short", used_tokens=reservation.tokens))

    async def heard(self, reservation: Reservation) -> None:
        """Tells that the first bytes of a good answer came: a gate that this call tries opens at once."""
        if not self.gate:
            return
        found = await self.runner.call(
            ADMISSION,
            HEARD,
            keys.upstream(self.upstream),
            **self._limits(),
            granted_at=reservation.granted_at_ms,
        )
        self._note(found.gate, found.code)

    async def tell(self, reservation: Reservation, said: Evidence) -> bool:
        """Takes what a call came to, as read already; `report` and `abandon` end here."""
        found = await self.runner.call(
            ADMISSION,
            REPORT,
            keys.upstream(self.upstream),
            **self._limits(),
            **words_of(reservation, said, longest_pause_ms=self.longest_pause_ms, probe_ms=self.probe_ms)
            | {"seq": reservation.seq, "limit_rpm": self._news(said.limit_rpm)},
        )
        self._note(found.gate, found.code)
        if found.confirmed and self.gate:
            self.events.gate_confirmed(self.gate, found.code, upstream=self.route)
        return bool(found.shared)

    async def pause(self, *, for_ms: int = 0, by: str = "", why: str = "") -> None:
        """Stops the whole fleet's calls until `resume`, or for `for_ms`; `by` and `why` are shown to operators."""
        await self.runner.call(
            ADMISSION, PAUSE, keys.upstream(self.upstream), **self._limits(), for_ms=for_ms, by=by, why=why
        )

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
        self.events.gate_changed(self.gate, code, upstream=self.route)


@lru_cache(maxsize=4096)
def tenant_key(tenant: str) -> str:
    """Short, of one length, and never to be taken for a number."""
    return f"t{sha256(tenant.encode(errors='surrogatepass')).hexdigest()[:8]}"


def row_of(ask: Ask) -> Row:
    """One request, as the script reads it."""
    said: dict[str, Argument] = {
        "token": ask.token,
        "tokens": ask.tokens,
        "tenant": tenant_key(ask.tenant),
        "body": f"b{ask.body[:8]}",
        "kind": ask.call_kind,
        "enqueued_at": ask.enqueued_at_ms,
        "ends": ask.ends_ms,
        "failures": ask.failures + ask.own,
    }
    return Row({}, said)


def words_of(reservation: Reservation, said: Evidence, *, longest_pause_ms: int, probe_ms: int) -> dict[str, Argument]:
    """The end of one call, as the script reads it."""
    asked = reservation.asked
    return {
        "token": reservation.token,
        "granted_at": reservation.granted_at_ms,
        "probe": bool(reservation.gate),
        "tenant": tenant_key(asked.tenant if asked else ""),
        "body": f"b{asked.body[:8]}" if asked else f"b{reservation.token}",
        "kind": asked.call_kind if asked else "",
        "again": bool(asked and asked.failures + asked.refusals),
        "verdict": said.verdict,
        "called": said.called,
        "reserved": reservation.tokens,
        "used": said.used_tokens,
        "limit_rpm": said.limit_rpm,
        "took_ms": said.took_ms,
        "retry_after_ms": round(said.retry_after_s * 1000),
        "longest_pause_ms": longest_pause_ms,
        "code": said.code,
        "probe_ms": probe_ms,
    }


def _grant(found: Admitted, limits: Limits, route: str) -> Grant:
    words, numbers = found.answers[::2], found.answers[1::2]
    gate = cast("Gate", found.gate if found.probe else "")
    return Grant(
        answers=tuple(
            Answer(_WORDS[word], int(number), route, gate) for word, number in zip(words, numbers, strict=True)
        ),
        wait_ms=found.wait_ms,
        reason=found.reason,
        code=found.code,
        confirmed_at_ms=found.confirmed_at_ms,
        probe=bool(found.probe),
        now_ms=found.now_ms,
        per_second=found.per_second,
        limits=replace(
            limits,
            requests_per_minute=found.requests_per_minute,
            tokens_per_minute=found.tokens_per_minute,
            max_in_flight=found.max_in_flight,
        ),
    )
