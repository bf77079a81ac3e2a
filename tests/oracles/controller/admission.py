"""Admission: whether a call may start now, and what its end says of the fleet.

`admit` and `report` are the two calls of the script; every other module here is one concern of theirs, as plain data
and functions over it. What decides a call, in this order: the time left to it, the gate, the upstream's silence, the
calls in flight, the retry budget, the lane's turn and the learned rate.

- What names the request (its price, size, tier, model, content, scope) is no evidence at all: `scope` says so.
- Our own clock (a timeout or deadline of the caller, a cancel, a drain) says nothing of gate, rate and calls in flight.
- A refusal that others do not share is charged to its request, which waits alone, without pausing or slowing anybody.
"""

from dataclasses import dataclass, field
from typing import Literal

from oracles.controller import evidence, gate, overload, probation, remedy
from oracles.controller.evidence import RULES, Kind, Tally
from oracles.controller.gate import Gate
from oracles.controller.overload import CallTime, Flight, Retries, Silence
from oracles.controller.pace import Pace
from oracles.controller.probation import Probation

Verdict = Literal["ok", "throttled", "overloaded", "failed", "authentication", "quota", "cut short", "unsent"]
Scope = Literal["account", "unknown", "request"]
Answer = Literal["go", "wait", "late", "later"]  # start; ask again; answer early; park until the retry budget allows

GATES: dict[Kind, str] = {"authentication": "authentication", "quota": "quota", "failed": "failed"}
ASIDE_MS = 100.0  # until a probe is offered again that another request would make better


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that would start now."""

    token: str
    body: str  # fingerprint
    tenant: str
    kind: str = ""  # model and size, as far as they decide how long a call takes
    tokens: int = 0
    time_left_ms: float = float("inf")
    whole_ms: float = float("inf")  # from enqueueing to the deadline
    failures: int = 0  # calls of it that failed or that it alone was refused


@dataclass(frozen=True, slots=True)
class Reservation:
    """The right to make one call."""

    asked: Asked
    granted_at_ms: float
    seq: int
    probe: bool = False


@dataclass(slots=True)
class Admission:
    """All that the fleet remembers about one upstream."""

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
    back_in_ms: dict[str, float] = field(
        default_factory=dict
    )  # by token, of those told in the last round to come later
    permits: set[str] = field(default_factory=set)
    seq: int = 0

    def admit(
        self, now_ms: float, asked: list[Asked], lane: str = "", weight: float = 1.0
    ) -> tuple[list[tuple[Answer, Reservation | None]], float]:
        """One answer for each of `asked`, in order, and in how many ms those that wait should ask again."""
        self._prepare(now_ms, asked)
        answers: list[tuple[Answer, Reservation | None]] = []
        wait_ms, aside = 0.0, False
        for one in asked:
            if overload.late(self.times, now_ms, one.kind, one.time_left_ms, one.whole_ms):
                answers.append(("late", None))
            elif wait_ms:
                answers.append(self._wait(now_ms, one))
            elif self._too_soon(now_ms, one):
                answers.append(self._later(now_ms, one))
            elif self._steps_aside(now_ms, one):
                aside = True
                answers.append(self._wait(now_ms, one))
            elif (wait := self._wait_ms(now_ms, lane, weight, one)) > 0:
                answers.append(self._wait(now_ms, one))
                wait_ms = wait if answers[-1][0] == "wait" else 0.0  # who makes room holds up nobody
            else:
                answers.append(("go", self._grant(now_ms, one)))
                if self.shut.kind:
                    wait_ms = self.shut.probe_ms
        return answers, wait_ms or ASIDE_MS * aside

    def _prepare(self, now_ms: float, asked: list[Asked]) -> None:
        self.back_in_ms.clear()
        for one in asked:
            evidence.see(self.tenants, now_ms, one.tenant)
            evidence.see(self.bodies, now_ms, one.body)
            probation.see(self.trial, now_ms, one.tenant)
        overload.refill(self.retries, now_ms)
        if not self.shut.kind and overload.silent(self.silence, self.times, now_ms):
            gate.shut(self.shut, "failed", now_ms, "", "")

    def _wait(self, now_ms: float, one: Asked) -> tuple[Answer, None]:
        if self._makes_room(now_ms, one):
            return self._later(now_ms, one)
        probation.waits(self.trial, now_ms, one.tenant)
        overload.waits(self.retries, now_ms, one.failures)
        return "wait", None

    def _later(self, now_ms: float, one: Asked) -> tuple[Answer, None]:
        if self._makes_room(now_ms, one):
            per_s = self.pace.state.scale * 1_000 / max(self.pace.charge(one.tokens), 0.001)
            back_in_ms = probation.back_in_ms(self.trial, now_ms, per_s)
            self.back_in_ms[one.token] = min(back_in_ms, one.time_left_ms / 2)
        return "later", None

    def _makes_room(self, now_ms: float, one: Asked) -> bool:
        if self.shut.kind and now_ms - self.shut.since_ms > probation.LOOK_MS:
            return False
        return probation.makes_room(self.trial, now_ms, one.tenant, one.time_left_ms)

    def _too_soon(self, now_ms: float, one: Asked) -> bool:
        """Whether it makes room: at a shut gate a retry would tell little, and hide those that would tell more."""
        if self._makes_room(now_ms, one) and probation.yields(self.trial, now_ms):
            return True
        if one.failures and self.shut.kind:
            return now_ms < self.shut.probe_at_ms + self.shut.probe_ms
        return not overload.affords(self.retries, one.failures)

    def _steps_aside(self, now_ms: float, one: Asked) -> bool:
        """Whether a probe is due that another request would make better."""
        due = self.shut.kind and now_ms >= self.shut.probe_at_ms
        on_trial = self._makes_room(now_ms, one)
        others = evidence.others_active(self.tenants, now_ms, one.tenant)
        better = others and (on_trial or one.tenant == self.shut.tenant)
        return bool(due) and not gate.suits(self.shut, now_ms, one.body, one.failures, better=better)

    def _wait_ms(self, now_ms: float, lane: str, weight: float, one: Asked) -> float:
        if self.shut.kind:
            at_once = not self.shut.probing and now_ms > self.shut.since_ms and self._stands_apart(one)
            return 0.0 if at_once else max(0.0, self.shut.probe_at_ms - now_ms)
        in_flight = len(self.permits)
        crowded = in_flight >= min(self.flight.limit, self.most_in_flight or float("inf"))
        self.flight.crowded |= crowded or in_flight >= overload.CROWDED * self.flight.limit
        granted, wait_ms = self.pace.admit(now_ms, lane, weight, [one.tokens], crowded=crowded)
        return 0.0 if granted else wait_ms

    def _grant(self, now_ms: float, one: Asked) -> Reservation:
        self.seq += not one.failures  # tallies hear first calls only
        self.permits.add(one.token)
        overload.scouted(self.times, now_ms, one.kind)
        if not self.silence.started:
            self.silence.answered_at_ms = now_ms
        self.silence.started += 1
        probe = bool(self.shut.kind)
        if probe:
            gate.probe(self.shut, now_ms, one.tenant)
        else:
            overload.start(self.retries, now_ms, retry=one.failures > 0)
            probation.start(self.trial, one.tenant)
        return Reservation(one, now_ms, self.seq, probe)

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
