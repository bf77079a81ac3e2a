"""Admission where there are several routes: the questions and answers of `client.Admission`, and the route to take.

One call of the script looks at every route that a request may take and sets aside the budget of one
(`lua/choice.lua`, `lua/routes.lua`). While all have room it looks at one of them (`first_choice.py`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, cast

import orjson

from api_contracts import ErrorCode
from worker.admission import evidence
from worker.admission.client import row_of, words_of
from worker.admission.commands import (
    ADMISSION,
    ADMIT_BY_ROUTE,
    HEARD_BY_ROUTE,
    REPORT_BY_ROUTE,
    Blocked,
    Routed,
    Told,
)
from worker.admission.events import AdmissionEvents, Unheard
from worker.admission.evidence import Evidence
from worker.admission.first_choice import FirstChoice
from worker.admission.grants import AHEAD_S, Answer, Ask, Gate, Grant, Limits, Outage, Reservation
from worker.admission.route_table import RouteTable, StateSpec, Way, Ways
from worker.gateway.upstream import Call
from worker.storage.commands import Row
from worker.storage.scripts import ScriptRunner

MOST_AHEAD_S: Final = 60.0
OF_THE_ACCOUNT: Final = frozenset({"throttled", "quota"})
"""Verdicts about the account; all others are about the route."""


@dataclass(slots=True, kw_only=True)
class RoutedAdmission:
    """The script's commands for a table of routes, typed."""

    runner: ScriptRunner
    table: RouteTable
    burst_s: float
    lease_ms: int
    longest_pause_ms: int
    probe_ms: int
    events: AdmissionEvents = field(default_factory=Unheard)
    seen: dict[str, Told] = field(default_factory=dict[str, Told])
    """The last that was told of each state, by its scope."""
    _hints: dict[str, float] = field(default_factory=dict[str, float])
    _first: FirstChoice = field(init=False)
    _per_second: float = 0.0

    def __post_init__(self) -> None:
        self._first = FirstChoice(self.table, self._told)

    @property
    def gate(self) -> Gate:
        """The first route's gate, where the gates of all are shut."""
        gates: list[Gate] = [self._gate_of(way) for way in self._all_ways()]
        return gates[0] if all(gates) else ""

    @property
    def paused(self) -> bool:
        """Whether an operator paused every route."""
        return all(self._told(state).paused for state in self._accounts())

    @property
    def ahead_s(self) -> float:
        """The longest `spill_after`: most requests do not tell when they were enqueued, but are seen when taken."""
        spill_s = max(route.spill_ms for route in self.table.routes) / 1000
        return min(max(AHEAD_S, spill_s), MOST_AHEAD_S)

    def fits(self, tokens: int) -> bool:
        """Whether a request of this size can ever be admitted by any route."""
        limits = (self._told(state).tokens_per_minute for state in self._accounts())
        return any(not 0 < limit < tokens for limit in limits)

    async def grant(self, lane: str, weight: int, asked: Sequence[Ask]) -> Grant:
        """Asks for calls in the order given; idempotent by token."""
        if (grant := await self._by_one(lane, weight, asked)) is None:
            grant = await self._ask(lane, weight, asked, self.table.ways(ask.model for ask in asked))
            self._per_second = grant.per_second
            self._first.looked(asked, room=grant.granted == len(asked) and not grant.probe)
        self.events.calls_granted(asked, grant)
        return grant

    async def _by_one(self, lane: str, weight: int, asked: Sequence[Ask]) -> Grant | None:
        """The calls of all of these by their first choice; None where it has no room for all, or there is none."""
        ways = self._first.of(asked)
        if ways is None:
            return None
        grant = await self._ask(lane, weight, asked, ways)
        if grant.granted < len(asked):
            self._first.missed()
            return None
        return replace(grant, per_second=self._per_second)

    async def _ask(self, lane: str, weight: int, asked: Sequence[Ask], ways: Ways) -> Grant:
        found = await self.runner.call(
            ADMISSION,
            ADMIT_BY_ROUTE,
            {},
            [_row(ask) for ask in asked],
            ways.groups,
            burst_ms=self._burst_ms,
            lease_ms=self.lease_ms,
            lane=lane,
            weight=weight,
            ways=ways.json,
        )
        for state, told in zip(ways.states, found.told, strict=True):
            self._note(state, told)
        return self._grant(found, ways)

    async def report(self, reservation: Reservation, call: Call | None) -> bool:
        """Ends a reservation, as `Admission.report` does. A model that the route has not closes it for that model."""
        gone = bool(call and getattr(call.outcome, "code", None) is ErrorCode.MODEL_UNAVAILABLE)
        return await self.tell(reservation, evidence.read(call, reserved=reservation.tokens), gone=gone)

    async def abandon(self, reservation: Reservation) -> None:
        """Ends the reservation of a call that was broken off: it may have used all it reserved, and says nothing."""
        await self.tell(reservation, Evidence(verdict="cut_short", used_tokens=reservation.tokens))

    async def heard(self, reservation: Reservation) -> None:
        """Tells that the first bytes of a good answer came: a gate that this call tries opens at once."""
        if not reservation.gate:
            return
        way = self._way_of(reservation)
        found = await self.runner.call(
            ADMISSION,
            HEARD_BY_ROUTE,
            {},
            _rows_of(way, reservation),
            burst_ms=self._burst_ms,
            granted_at=reservation.granted_at_ms,
        )
        self._note_gates(way, found.gates)

    async def tell(self, reservation: Reservation, said: Evidence, *, gone: bool = False) -> bool:
        """Takes what a call came to, as read already; `report` and `abandon` end here."""
        way, asked = self._way_of(reservation), reservation.asked
        found = await self.runner.call(
            ADMISSION,
            REPORT_BY_ROUTE,
            {},
            _rows_of(way, reservation),
            burst_ms=self._burst_ms,
            **words_of(reservation, said, longest_pause_ms=self.longest_pause_ms, probe_ms=self.probe_ms)
            | {
                "gate": reservation.gate,
                "again": bool(asked) and self._again(asked, way, said),
                "limit_rpm": self._news(way, said.limit_rpm),
                "gone": asked.model if asked and gone else "",
            },
        )
        self._note_gates(way, found.gates)
        if found.confirmed:
            state = way.role("account" if said.verdict in OF_THE_ACCOUNT else "route") or way.states[0][0]
            if gate := self._told(state).gate:
                self.events.gate_confirmed(gate, self._told(state).code, upstream=state.label)
        return bool(found.shared)

    @property
    def _burst_ms(self) -> int:
        return round(self.burst_s * 1000)

    def _grant(self, found: Routed, ways: Ways) -> Grant:
        soonest = min(found.blocked, key=lambda blocked: blocked.wait_ms, default=Blocked("", 0, "", 0, ""))
        return Grant(
            answers=tuple(self._answer(parts, ways) for parts in found.answers),
            wait_ms=soonest.wait_ms,
            reason=soonest.reason,
            code=soonest.code,
            confirmed_at_ms=soonest.since_ms,
            probe=any(answer[2] for answer in found.answers if answer[0] == b"go"),
            now_ms=found.now_ms,
            per_second=found.per_second,
            limits=self._limits(),
            outages={blocked.model: Outage(blocked.code, blocked.since_ms) for blocked in found.blocked},
        )

    def _answer(self, parts: Sequence[Any], ways: Ways) -> Answer:
        if parts[0] != b"go":
            return Answer(cast("Literal['wait', 'late', 'later']", parts[0].decode()), int(parts[1]))
        _, number, probe, *numbers = cast("Sequence[int]", parts)
        way: Way = ways.ways[number - 1]
        gate: Gate = self._gate_of(way) if probe else ""
        return Answer("go", numbers[0], way.route.name, gate, tuple(numbers))

    def _limits(self) -> Limits:
        """Of all accounts together; 0 where one is unknown."""
        told = [self._told(state) for state in self._accounts()]
        return Limits(
            _sum([one.requests_per_minute for one in told]),
            _sum([one.tokens_per_minute for one in told]),
            _sum([one.max_in_flight for one in told]),
            self.burst_s,
        )

    def _accounts(self) -> list[StateSpec]:
        """The states of the accounts that routes are charged to."""
        used = dict.fromkeys(route.account for route in self.table.routes)
        return [self.table.account_state(self.table.accounts[name]) for name in used]

    def _all_ways(self) -> list[Way]:
        return [
            Way(route, ((self.table.route_state(route), "route"), (self.table.account_state(account), "account")))
            for route in self.table.routes
            if (account := self.table.accounts[route.account])
        ]

    def _gate_of(self, way: Way) -> Gate:
        gates: list[Gate] = [gate for state, _ in way.states if (gate := self._told(state).gate)]
        return gates[0] if gates else ""

    def _told(self, state: StateSpec) -> Told:
        return self.seen.get(state.scope) or Told.unseen(state.limits)

    def _way_of(self, reservation: Reservation) -> Way:
        model = reservation.asked.model if reservation.asked else ""
        return self.table.way(reservation.route, model)

    def _again(self, asked: Ask, way: Way, said: Evidence) -> bool:
        """Whether an earlier call of the request was refused or failed by whom this call is about."""
        if said.verdict not in OF_THE_ACCOUNT:
            return way.route.name in asked.tried
        return any(route.account == way.route.account for route in self.table.routes if route.name in asked.tried)

    def _news(self, way: Way, limit_rpm: float | None) -> float | None:
        """A limit that headers name is told once, and only where no limit is configured."""
        account = way.route.account
        if limit_rpm == self._hints.get(account) or self.table.accounts[account].limits.requests_per_minute:
            return None
        if limit_rpm:
            self._hints[account] = limit_rpm
        return limit_rpm

    def _note_gates(self, way: Way, gates: Sequence[tuple[Gate, str]]) -> None:
        for (state, _), (gate, code) in zip(way.states, gates, strict=True):
            self._note(state, self._told(state)._replace(gate=gate, code=code))

    def _note(self, state: StateSpec, told: Told) -> None:
        before, self.seen[state.scope] = self._told(state), told
        if told.gate != before.gate and not told.paused:
            self.events.gate_changed(told.gate, told.code, upstream=state.label)


def _row(ask: Ask) -> Row:
    said = row_of(ask)
    return Row(
        said.keys,
        {
            **said.args,
            "model": ask.model,
            "tried": orjson.dumps(dict(ask.tried)).decode() if ask.tried else "",
            "moving": ask.moving,
            "keeps": ask.keeps,
        },
    )


def _rows_of(way: Way, reservation: Reservation) -> list[Row]:
    """The states of a way, each with the number of calls that it had started when this one was granted."""
    numbers: Mapping[str, int] = dict(zip(("route", "account", "model"), reservation.seqs, strict=False))
    return [state.row(seq=numbers.get(role.split()[0], 0), role=role) for state, role in way.states]


def _sum(limits: Sequence[int]) -> int:
    return sum(limits) if all(limits) else 0
