"""Admission: whether a call may start now, and what its end says of the fleet.

`admit` and `report` are the two calls of the script; every other module here is one concern of theirs, as plain data
and functions over it. What decides a call, in this order: the time left to it, the gate, the upstream's silence, the
calls in flight, the retry budget, the lane's turn and the learned rate. The rules for its end are in `memory.py`.
"""

from dataclasses import dataclass

from oracles.controller import evidence, gate, overload, probation
from oracles.controller.grants import Answer, Asked, Reservation, Scope, Verdict
from oracles.controller.memory import Memory

__all__ = ["Admission", "Answer", "Asked", "Reservation", "Scope", "Verdict"]

ASIDE_MS = 100.0  # until a probe is offered again that another request would make better


@dataclass(slots=True)
class Admission(Memory):
    """One upstream."""

    def admit(
        self, now_ms: float, asked: list[Asked], lane: str = "", weight: float = 1.0
    ) -> tuple[list[tuple[Answer, Reservation | None]], float]:
        """One answer for each of `asked`, in order, and in how many ms those that wait should ask again."""
        self._prepare(now_ms, asked)
        last_turn_ms = self.pace.last_turn(lane)
        answers: list[tuple[Answer, Reservation | None]] = []
        wait_ms, aside = 0.0, False
        for left, one in zip(range(len(asked), 0, -1), asked, strict=True):
            if overload.late(self.times, now_ms, one.kind, one.time_left_ms, one.whole_ms):
                answers.append(("late", None))
            elif wait_ms:
                answers.append(self._wait(now_ms, one))
            elif self._too_soon(now_ms, one):
                answers.append(self._later(now_ms, one))
            elif self._steps_aside(now_ms, one):
                aside = True
                answers.append(self._wait(now_ms, one))
            elif (wait := self._wait_ms(now_ms, lane, weight, one, turn=(last_turn_ms, left))) > 0:
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

    def _wait_ms(self, now_ms: float, lane: str, weight: float, one: Asked, *, turn: tuple[float, int]) -> float:
        if self.shut.kind:
            at_once = not self.shut.probing and now_ms > self.shut.since_ms and self._stands_apart(one)
            return 0.0 if at_once else max(0.0, self.shut.probe_at_ms - now_ms)
        in_flight = len(self.permits)
        crowded = in_flight >= min(self.flight.limit, self.most_in_flight or float("inf"))
        self.flight.crowded |= crowded or in_flight >= overload.CROWDED * self.flight.limit
        granted, wait_ms = self.pace.admit(now_ms, lane, weight, [one.tokens], crowded=crowded, turn=turn)
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
