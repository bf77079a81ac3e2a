"""The accounts whose limits a fleet keeps, the routes by which it calls, and the prices of models. Values."""

import contextlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Final, Self

from worker.config.values import read_key

DEFAULT: Final = "default"
"""The one account and the one route of a fleet without a configuration file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Limits as far as they are known; 0 = unknown."""

    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    max_in_flight: int = 0

    @property
    def known(self) -> bool:
        return bool(self.requests_per_minute or self.tokens_per_minute or self.max_in_flight)


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """An account's limits, shared by all its routes; `models` has the limits of single models inside it."""

    name: str
    budget: Budget = field(default_factory=Budget)
    models: Mapping[str, Budget] = field(default_factory=dict[str, Budget])


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySource:
    """The place of a key: a file, an environment variable, or neither. Its value is read anew at each call."""

    file: Path | None = None
    variable: str = ""
    fixed: Callable[[], str] | None = field(default=None, repr=False)

    @property
    def place(self) -> str:
        """In words, for operators; never the key."""
        return f"file {self.file}" if self.file else f"variable {self.variable}"

    def read(self) -> str:
        """The key as it is now; empty if there is none, or none can be read."""
        with contextlib.suppress(ValueError):
            return self.checked()
        return ""

    def checked(self) -> str:
        """The key as it is now. Raises ValueError that says what is wrong with its place."""
        if self.fixed is not None:
            return self.fixed()
        if self.file is not None:
            return read_key(self.file)
        if not (key := os.environ.get(self.variable, "").strip()):
            raise ValueError("names an environment variable that is not set")
        return key


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One way to call: a gateway under one key. Without `models` it serves every model, under its own name."""

    name: str
    url: str
    account: str
    key: KeySource
    order: int = 1
    spill_after: timedelta = timedelta(0)
    models: Mapping[str, str] = field(default_factory=dict[str, str])

    def serves(self, model: str) -> bool:
        return not self.models or model in self.models


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """USD per million tokens; `cached_input` is the part of the input that the gateway had in its cache."""

    input: float
    cached_input: float
    output: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Routing:
    """At least one route; the account of each is among `accounts`. `prices` are by model."""

    accounts: Mapping[str, Account]
    routes: Mapping[str, Route]
    prices: Mapping[str, Price] = field(default_factory=dict[str, Price])

    @classmethod
    def single(cls, url: str, key: Callable[[], str], budget: Budget) -> Self:
        """One account and one route, both `default`."""
        account = Account(name=DEFAULT, budget=budget)
        route = Route(name=DEFAULT, url=url, account=DEFAULT, key=KeySource(fixed=key))
        return cls(accounts={DEFAULT: account}, routes={DEFAULT: route})

    @property
    def budget(self) -> Budget:
        """The limits of all accounts together; unknown where one of them is."""
        budgets = [account.budget for account in self.accounts.values()]
        return Budget(
            requests_per_minute=_sum([budget.requests_per_minute for budget in budgets]),
            tokens_per_minute=_sum([budget.tokens_per_minute for budget in budgets]),
            max_in_flight=_sum([budget.max_in_flight for budget in budgets]),
        )

    @property
    def models(self) -> tuple[str, ...]:
        """The models that routes name, in the order of the file."""
        return tuple(dict.fromkeys(model for route in self.routes.values() for model in route.models))

    def serving(self, model: str) -> list[Route]:
        """The routes that serve a model, the lowest order first."""
        return sorted((route for route in self.routes.values() if route.serves(model)), key=lambda route: route.order)


def _sum(limits: list[int]) -> int:
    return sum(limits) if all(limits) else 0
