"""The requests that are told to come back later: retries beyond their budget, and those of tenants on probation."""

import json
from dataclasses import dataclass
from typing import Any

from oracles.controller import overload, probation
from oracles.controller.overload import Retries
from oracles.controller.probation import Probation


@dataclass
class MakingRoom:
    """The two reasons at the start of a round."""

    now: int
    trial: Probation
    retries: Retries
    paused: bool
    probe_out: bool

    @classmethod
    def of(cls, state: dict[bytes, bytes], now: int, back: float, *, paused: bool) -> "MakingRoom":
        """As Redis keeps them; `back` is how far its clock went back since."""

        def time(name: bytes) -> float:
            kept = float(state.get(name, 0))
            return kept and kept - back

        trial = Probation(
            rows={tenant: (row[0], row[1]) for tenant, row in json.loads(state.get(b"pr_rows", b"{}")).items()},
            tenants=set(state.get(b"pr_tenants", b"").decode().split()),
            share=int(state.get(b"pr_share", 0)),
            seen_ms=time(b"pr_seen"),
            waiting_ms=time(b"pr_waiting"),
        )
        left = float(state.get(b"re_left", overload.MOST_RETRIES))
        retries = Retries(left, time(b"re_at"), time(b"re_first_at"))
        return cls(now, trial, retries, paused, state.get(b"probe_out", b"0") == b"1")

    def prepare(self, asked: list[Any]) -> None:
        overload.refill(self.retries, self.now)
        for one in asked:
            probation.see(self.trial, self.now, one.tenant)

    def makes_room(self, one: Any, shut: Any) -> bool:
        """Whether it comes back later rather than wait in line."""
        if self.paused or (shut.name and self.now - shut.since > probation.LOOK_MS):
            return False
        return probation.makes_room(self.trial, self.now, one.tenant, one.ends - self.now)

    def too_soon(self, one: Any, shut: Any) -> bool:
        """Whether its turn is left to others, whatever the budget."""
        if self.makes_room(one, shut) and probation.yields(self.trial, self.now):
            return True
        if one.failures and shut.name:
            return self.now < shut.probe_at + shut.probe_ms
        return not overload.affords(self.retries, one.failures)

    def at_once(self, one: Any, shut: Any) -> bool:
        """Whether it need not wait until a probe is due."""
        breaker = shut.name == "breaker_open" and not shut.silence and self.now > shut.since
        return breaker and not self.probe_out and probation.outside(self.trial, one.tenant)

    def answered(self, one: Any, word: str, *, probe: bool) -> None:
        """Goes on to the next request."""
        if word == "wait":
            probation.waits(self.trial, self.now, one.tenant)
            overload.waits(self.retries, self.now, one.failures)
        elif word == "go" and not probe:
            probation.start(self.trial, one.tenant)
            overload.start(self.retries, self.now, retry=one.failures > 0)
