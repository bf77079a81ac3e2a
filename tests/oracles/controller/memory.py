"""The end of a call as evidence about the fleet, and all that is remembered of it.

- What names the request (its price, size, tier, model, content, scope) is no evidence at all: `scope` says so.
- Our own clock (a timeout or deadline of the caller, a cancel, a drain) says nothing of gate, rate and calls in flight.
- A refusal that others do not share is charged to its request, which waits alone, without pausing or slowing anybody.
"""

from dataclasses import dataclass, field

from oracles.controller import evidence, gate, overload, probation, remedy
from oracles.controller.evidence import RULES, Kind, Tally
from oracles.controller.gate import Gate
from oracles.controller.grants import Asked, Reservation, Scope, Verdict
from oracles.controller.overload import CallTime, Flight, Retries, Silence
from oracles.controller.pace import Pace
from oracles.controller.probation import Probation

GATES: dict[Kind, str] = {"authentication": "authentication", "quota": "quota", "failed": "failed"}


@dataclass(slots=True)
class Memory:
    """All that the fleet remembers about one upstream, and how the end of a call changes it."""

    pace: Pace
    most_in_flight: int = 0
    shut: Gate = field(default_factory=Gate)
    tallies: dict[Kind, Tally] = field(default_factory=lambda: {kind: Tally() for kind in RULES})
    tenants: evidence.Latest = field(default_factory=evidence.Latest)
    bodies: evidence.Latest = field(default_factory=evidence.Latest)
    flight: Flight = field(default_factory=Flight)
    times: dict[str, CallTime] = field(default_factory=dict)
    slowed: remedy.Remedy = field(default_factory=remedy.Remedy)
    retries: Retries = field(default_factory=Retries)
    silence: Silence = field(default_factory=Silence)
    trial: Probation = field(default_factory=Probation)
    # By token, of those told in the last round to come later.
    back_in_ms: dict[str, float] = field(default_factory=dict)
    permits: set[str] = field(default_factory=set)
    seq: int = 0

    def heard(self, now_ms: float, reservation: Reservation) -> None:
        """The first bytes of a good answer came."""
        self._answered(now_ms)
        if self.shut.kind and reservation.granted_at_ms > self.shut.since_ms:
            self._open(now_ms)

    def report(
        self,
        now_ms: float,
        reservation: Reservation,
        verdict: Verdict,
        *,
        took_ms: float = 0.0,
        scope: Scope = "unknown",
        retry_after_ms: float = 0.0,
        again: bool = False,
        used: int | None = None,
        called: bool = True,
    ) -> bool:
        """Ends a call; True if its refusal is shared by the fleet, False if it is the request's own.

        `again` says that an earlier call of this request was refused or failed: it was heard then. `used` tokens; None:
        all that were reserved. `called` is False where the request never reached the upstream.
        """
        in_flight = len(self.permits)
        if reservation.asked.token not in self.permits:
            return False
        self.permits.remove(reservation.asked.token)
        one = reservation.asked
        if not reservation.probe:
            self.pace.ended(now_ms, reservation.granted_at_ms, passed=verdict == "ok" or scope == "request")
        self._settle(now_ms, reservation, one.tokens if used is None else used, called=called and verdict != "unsent")
        shared = self._judge(now_ms, reservation, verdict, took_ms, scope, retry_after_ms, in_flight, again)
        if verdict == "ok":
            probation.answered(self.trial, now_ms, one.tenant)
        elif (
            verdict != "unsent"
            and not again
            and (not shared or (self.shut.kind and verdict in {"failed", "overloaded"}))
        ):
            probation.came_to_nothing(self.trial, now_ms, one.tenant)
        return shared

    def _judge(
        self,
        now_ms: float,
        reservation: Reservation,
        verdict: Verdict,
        took_ms: float,
        scope: Scope,
        retry_after_ms: float,
        in_flight: int,
        again: bool,
    ) -> bool:
        if verdict == "cut short":
            self._cut_short(now_ms, reservation, took_ms, again)
            return False
        if verdict == "unsent":
            self.silence.started = max(0, self.silence.started - 1)
            if self.shut.kind and reservation.granted_at_ms > self.shut.since_ms:
                self.shut.probe_at_ms, self.shut.probing = now_ms, False  # its turn is left to the next
            return False
        self._answered(now_ms)
        if verdict == "ok" or scope == "request":
            self._ok(now_ms, reservation, took_ms if verdict == "ok" else 0.0, in_flight, again)
            return False
        return self._refused(now_ms, reservation, verdict, retry_after_ms, in_flight, again)

    def _settle(self, now_ms: float, reservation: Reservation, used: int, *, called: bool) -> None:
        """Corrects the budget; a probe was granted without being charged."""
        tokens = reservation.asked.tokens
        if reservation.probe:
            self.pace.settle(now_ms, 0, 0)
        elif called:
            self.pace.settle(now_ms, tokens, used)
        else:
            self.pace.give_back(now_ms, tokens)

    def _cut_short(self, now_ms: float, reservation: Reservation, took_ms: float, again: bool) -> None:
        """Our own clock ended it: that tells how long calls take, if they take longer for several tenants."""
        kind = reservation.asked.kind
        if took_ms < overload.usual_ms(self.times, kind):
            self.silence.started = max(0, self.silence.started - 1)
        elif self._weigh(now_ms, reservation, "slow", again):
            overload.lengthen(self.times, kind, took_ms)

    def _answered(self, now_ms: float) -> None:
        """Any answer ends the silence, and opens the gate that silence shut."""
        self.silence.answered_at_ms, self.silence.started = now_ms, 0
        if self.shut.kind and not self.shut.body:
            self._open(now_ms)

    def _ok(self, now_ms: float, reservation: Reservation, took_ms: float, in_flight: int, again: bool) -> None:
        one = reservation.asked
        if self.shut.kind and (reservation.granted_at_ms > self.shut.since_ms or self._disproves(reservation)):
            self._open(now_ms)
        if not took_ms:
            return
        for kind, tally in self.tallies.items():
            evidence.answer(tally, RULES[kind], now_ms, reservation.seq, one.tenant, one.body)
        if again:
            overload.helped(self.retries, now_ms)
        remedy.passed(self.slowed, self.seq)
        granted_at_ms = reservation.granted_at_ms
        ratio = overload.learn(self.times, one.kind, took_ms, crowd=granted_at_ms <= self.flight.cut_at_ms)
        overload.answered(self.flight, self.times, now_ms, granted_at_ms, reservation.seq, ratio, in_flight)

    def _stands_apart(self, one: Asked) -> bool:
        """Whether the breaker is open for failures of tenants on probation alone, of whom its tenant is none."""
        return self.shut.kind == "failed" and bool(self.shut.body) and probation.outside(self.trial, one.tenant)

    def _disproves(self, reservation: Reservation) -> bool:
        """Whether an answer shows that the failures for which the gate shut are those of some tenants alone."""
        return reservation.seq > self.tallies["failed"].seq and self._stands_apart(reservation.asked)

    def _refused(
        self, now_ms: float, reservation: Reservation, kind: Kind, retry_after_ms: float, in_flight: int, again: bool
    ) -> bool:
        one = reservation.asked
        if self.shut.kind and kind in {*GATES, "overloaded"}:
            met = "failed" if kind == "overloaded" else kind
            if reservation.granted_at_ms > self.shut.since_ms:
                gate.fail(self.shut, met, now_ms, reservation.granted_at_ms, one.body, one.tenant)
            return True
        shared = self._weigh(now_ms, reservation, kind, again, in_flight)
        if kind == "overloaded":
            self.flight.refused += 1
            if shared:
                overload.overloaded(self.flight, now_ms, reservation.granted_at_ms, self.seq, in_flight)
            kind = "failed"
            shared = self._weigh(now_ms, reservation, kind, again, in_flight)
        if kind == "throttled":
            self.slowed.refused += not again
            share = 0.0 if shared else None
            if shared and self.pace.cap == 1:
                share = remedy.helps(self.slowed, self.seq, self.pace.state.scale)
            told = retry_after_ms > 0 and self._weigh(now_ms, reservation, "told", again)
            shared = share is not None
            if shared or told:
                wait_ms, since = retry_after_ms if told else 0.0, self.seq - reservation.seq
                self.pace.throttled(now_ms, reservation.granted_at_ms, one.tokens, wait_ms, since, share or 0)
            return shared or told
        if shared:
            gate.shut(self.shut, kind, now_ms, one.body, one.tenant)
        return shared

    def _weigh(self, now_ms: float, reservation: Reservation, kind: Kind, again: bool, in_flight: int = 0) -> bool:
        one, tally, rule = reservation.asked, self.tallies[kind], RULES[kind]
        if again:
            return False
        other_bodies = evidence.others_active(self.bodies, now_ms, one.body)
        if not evidence.refuse(
            tally, rule, now_ms, reservation.seq, in_flight, one.tenant, one.body, other_bodies=other_bodies
        ):
            return False
        return evidence.believed(tally, rule, others_active=evidence.others_active(self.tenants, now_ms, one.tenant))

    def _open(self, now_ms: float) -> None:
        self.shut.kind = ""
        probation.pardon(self.trial)
        for tally in self.tallies.values():
            evidence.forget(tally)
        self.pace.recover(now_ms)
