"""The routes of a fleet as admission sees them: who shares which state, and what each may serve. Values.

A state is the fleet's knowledge of an account, of a route, or of a model inside an account (`lua/state.lua`). A route
that is alone on its account shares the account's state, so that it costs no more than one upstream does.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

import orjson

from worker.admission.grants import Limits
from worker.storage import keys
from worker.storage.commands import Argument, Row

DEFAULT: Final = "default"
_MOST_CACHED: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountSpec:
    """One account: all routes that are charged to it share its limits."""

    name: str
    limits: Limits = field(default_factory=Limits)
    models: Mapping[str, Limits] = field(default_factory=dict[str, Limits])
    """The limits of single models inside it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteSpec:
    """One way to call; `models` None is every model."""

    name: str
    account: str
    order: int = 1
    spill_ms: int = 0
    models: frozenset[str] | None = None

    def serves(self, model: str) -> bool:
        return self.models is None or model in self.models


@dataclass(frozen=True, slots=True, kw_only=True)
class StateSpec:
    """One state: the name of its keys, its limits, the label that operators know it by."""

    scope: str
    label: str
    limits: Limits
    paced: bool = True
    """Whether it has a rate; without one only calls in flight are counted."""
    learners: int = 1
    """The accounts of unknown limits that serve side by side; it is one of them, or knows its limit."""

    def row(self, **more: Argument) -> Row:
        limits = self.limits
        said = {"rpm": limits.requests_per_minute, "tpm": limits.tokens_per_minute, "learners": self.learners}
        return Row(keys.upstream(self.scope), {**said, **more})


@dataclass(frozen=True, slots=True)
class Way:
    """One route for one model, and its states by the roles that they play, in the order of their places."""

    route: RouteSpec
    states: tuple[tuple[StateSpec, str], ...]
    """A role is `route`, `account` or `model`; `route account` where one state is both."""

    def role(self, wanted: str) -> StateSpec | None:
        return next((state for state, role in self.states if wanted in role.split()), None)


@dataclass(frozen=True, slots=True)
class Ways:
    """All ways for some models, as one call of the script takes them."""

    ways: tuple[Way, ...]
    states: tuple[StateSpec, ...]
    groups: tuple[Row, ...]
    json: str


@dataclass(frozen=True, kw_only=True)
class RouteTable:
    """The routes of one fleet and their accounts. The account of each route is among `accounts`."""

    fleet: str
    routes: tuple[RouteSpec, ...]
    accounts: Mapping[str, AccountSpec]
    _made: dict[tuple[frozenset[str], str], Ways] = field(
        default_factory=dict[tuple[frozenset[str], str], Ways], repr=False, compare=False
    )

    @property
    def is_single(self) -> bool:
        """Whether one state says all: one route for all models, on an account without limits of single models."""
        route = self.routes[0]
        return len(self.routes) == 1 and route.models is None and not self.accounts[route.account].models

    def ways(self, models: Iterable[str], *, by: str = "") -> Ways:
        """The ways for these models, the lowest order first, or those by one route; a model not served has none."""
        wanted = frozenset(models), by
        if wanted not in self._made:
            if len(self._made) >= _MOST_CACHED:
                self._made.clear()
            self._made[wanted] = self._ways(*wanted)
        return self._made[wanted]

    def first_ways(self, model: str) -> tuple[Way, ...]:
        """Those of the lowest order."""
        ways = self.ways((model,)).ways
        return tuple(way for way in ways if way.route.order == ways[0].route.order)

    def way(self, route: str, model: str) -> Way:
        return next(way for way in self.ways((model,)).ways if way.route.name == route)

    @cached_property
    def states(self) -> tuple[StateSpec, ...]:
        """Every state of the fleet, each once; those of routes first."""
        routes = [self.route_state(route) for route in self.routes]
        accounts = [self.account_state(account) for account in self.accounts.values()]
        models = [
            state
            for account in self.accounts.values()
            for model in account.models
            if (state := self.model_state(account, model))
        ]
        return tuple({state.scope: state for state in (*routes, *accounts, *models)}.values())

    def account_state(self, account: AccountSpec) -> StateSpec:
        sharing = [route for route in self.routes if route.account == account.name]
        label = sharing[0].name if len(sharing) == 1 else account.name
        scope = self.fleet if account.name == DEFAULT else f"{self.fleet}:account:{account.name}"
        return StateSpec(scope=scope, label=label, limits=account.limits, learners=self._learners(account))

    def route_state(self, route: RouteSpec) -> StateSpec:
        if sum(other.account == route.account for other in self.routes) == 1:
            return self.account_state(self.accounts[route.account])
        return StateSpec(scope=f"{self.fleet}:route:{route.name}", label=route.name, limits=Limits(), paced=False)

    def model_state(self, account: AccountSpec, model: str) -> StateSpec | None:
        """The state of a model with limits of its own."""
        limits = account.models.get(model)
        if limits is None:
            return None
        return StateSpec(
            scope=f"{self.fleet}:account:{account.name}:model:{model}",
            label=account.name,
            limits=limits,
            paced=limits.names_a_rate,
        )

    def _ways(self, models: Iterable[str], by: str) -> Ways:
        ways = tuple(
            (model, Way(route, self._states_of(route, model)))
            for model in sorted(models)
            for route in sorted(self.routes, key=lambda route: route.order)
            if route.serves(model) and by in {"", route.name}
        )
        states = tuple(dict.fromkeys(state for _, way in ways for state, _ in way.states))
        rows = [
            [way.route.name, model, way.route.order, way.route.spill_ms, *_numbers(way, states)] for model, way in ways
        ]
        return Ways(
            tuple(way for _, way in ways),
            states,
            tuple(state.row(max_in_flight=state.limits.max_in_flight, paced=state.paced) for state in states),
            orjson.dumps(rows).decode(),
        )

    def _learners(self, account: AccountSpec) -> int:
        """Those of other orders are not counted: they hardly serve at the same time."""
        if account.limits.names_a_rate:
            return 1
        orders = {route.order for route in self.routes if route.account == account.name}
        serving = {route.account for route in self.routes if route.order in orders} | {account.name}
        return sum(not self.accounts[name].limits.names_a_rate for name in serving)

    def _states_of(self, route: RouteSpec, model: str) -> tuple[tuple[StateSpec, str], ...]:
        account = self.accounts[route.account]
        own, shared, pair = self.route_state(route), self.account_state(account), self.model_state(account, model)
        states = ((own, "route account"),) if own == shared else ((own, "route"), (shared, "account"))
        return (*states, (pair, "model")) if pair else states


def _numbers(way: Way, states: tuple[StateSpec, ...]) -> list[int]:
    """The places of the states of route, account and model among all, from 1; 0 is none."""
    found = (way.role(role) for role in ("route", "account", "model"))
    return [states.index(state) + 1 if state else 0 for state in found]
