"""Routes on a real Valkey whose clock the test moves."""

import itertools
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from support.admission_parts import LEASE_MS, LONGEST_PAUSE_MS, PROBE_MS, ask
from support.ledger_parts import RecordingRunner
from support.movable_clock import MovableClock, on_movable_clock
from worker.admission import routed
from worker.admission.commands import ADMISSION
from worker.admission.evidence import Evidence, Verdict
from worker.admission.grants import Ask, Grant, Limits, Reservation
from worker.admission.route_table import AccountSpec, RouteSpec, RouteTable
from worker.admission.routed import RoutedAdmission
from worker.storage.connection import RedisTarget

MODEL = "gpt-5.4-mini"


def table(*routes: RouteSpec, **accounts: AccountSpec) -> RouteTable:
    """Accounts that are not given have 600 requests a minute."""
    named = {route.account: AccountSpec(name=route.account, limits=Limits(600)) for route in routes}
    return RouteTable(fleet="default", routes=routes, accounts=named | accounts)


THREE = table(
    RouteSpec(name="big", account="big"),
    RouteSpec(name="middle", account="middle"),
    RouteSpec(name="small", account="small"),
    big=AccountSpec(name="big", limits=Limits(600)),
    middle=AccountSpec(name="middle", limits=Limits(300)),
    small=AccountSpec(name="small", limits=Limits(120)),
)
ORDERED = table(
    RouteSpec(name="first", account="main", order=1),
    RouteSpec(name="backup", account="spare", order=2, spill_ms=5_000),
)
SHARING = table(
    RouteSpec(name="one", account="shared"),
    RouteSpec(name="two", account="shared"),
    RouteSpec(name="own", account="other", order=2),
)
PAIRED = table(
    RouteSpec(name="first", account="main"),
    RouteSpec(name="other", account="spare", order=2, models=frozenset({MODEL})),
    main=AccountSpec(name="main", limits=Limits(600), models={MODEL: Limits(60)}),
)


def having(routes: RouteTable) -> Any:
    return pytest.mark.parametrize("routes", [routes], indirect=True)


@dataclass
class Routes(MovableClock):
    """One process of a fleet with several routes."""

    runner: RecordingRunner
    admission: RoutedAdmission
    last: Grant = field(init=False, repr=False)
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    async def ask(self, count: int = 1, *, lane: str = "interactive", **said: Any) -> list[Reservation]:
        """Asks for calls under new tokens; what was granted."""
        asked = [self.asked(**said) for _ in range(count)]
        return await self.again(asked, lane=lane)

    async def again(self, asked: list[Ask], *, lane: str = "interactive") -> list[Reservation]:
        self.last = await self.admission.grant(lane, 1, asked)
        return [
            Reservation(
                one.token, one.tokens, 0, self.last.now_ms, answer.gate, answer.number, one, answer.route, answer.seqs
            )
            for one, answer in zip(asked, self.last.answers, strict=True)
            if answer.word == "go"
        ]

    def asked(self, **said: Any) -> Ask:
        number = next(self._numbers)
        return ask(f"t{number}", 1, now_ms=self.now_ms, **{"model": MODEL, "body": f"{number:08}"} | said)

    async def one(self, **said: Any) -> Reservation:
        (reservation,) = await self.ask(1, **said)
        return reservation

    async def drain(self, **said: Any) -> Counter[str]:
        """The calls by route that may start now."""
        granted: Counter[str] = Counter()
        while more := await self.ask(20, **said):
            granted.update(call.route for call in more)
        return granted

    async def tell(self, call: Reservation, verdict: Verdict = "ok", *, gone: bool = False, **said: Any) -> bool:
        facts: dict[str, Any] = {"code": verdict} | said
        return await self.admission.tell(call, Evidence(verdict=verdict, used_tokens=call.tokens, **facts), gone=gone)

    async def until(self, route: str, *, calls: int = 200, **said: Any) -> Reservation:
        """A call by this route; all others end well."""
        for _ in range(calls):
            for call in await self.ask(1, tenant=f"tenant-{next(self._numbers)}", **said):
                if call.route == route:
                    return call
                await self.tell(call)
            self.advance(150)
        raise AssertionError(f"no call by {route}")

    async def refuse(self, route: str, verdict: Verdict, *, times: int = 2) -> None:
        """So many calls by this route meet this, one after the other."""
        for _ in range(times):
            await self.tell(await self.until(route), verdict)

    async def empty_wallet(self, account: str) -> None:
        """Two calls by routes of this account meet its empty wallet; all others end well."""
        accounts = {route.name: route.account for route in self.admission.table.routes}
        met = 0
        while met < 2:
            call = await self.one(tenant=f"tenant-{met}")
            met += accounts[call.route] == account
            await self.tell(call, "quota" if accounts[call.route] == account else "ok")
            self.advance(100)

    @property
    def gates(self) -> dict[str, str]:
        """The shut gates, by what operators call them."""
        states = {state.scope: state.label for state in self.admission.table.states}
        return {states[scope]: told.gate for scope, told in self.admission.seen.items() if told.gate}

    def permits(self) -> dict[str, int]:
        return {key.decode(): self.redis.zcard(key) for key in self.redis.scan_iter("responses:permits:*")}


@asynccontextmanager
async def open_routes(client: Any, url: str, routes: RouteTable) -> AsyncGenerator[Routes]:
    runner = RecordingRunner(RedisTarget.parse(url).async_client())
    admission = RoutedAdmission(
        runner=runner,
        table=routes,
        burst_s=2.0,
        lease_ms=LEASE_MS,
        longest_pause_ms=LONGEST_PAUSE_MS,
        probe_ms=PROBE_MS,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(routed, "ADMISSION", on_movable_clock(ADMISSION))
        try:
            yield Routes(client, runner, admission)
        finally:
            await runner.aclose()
