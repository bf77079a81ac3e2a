"""The routes that a request may still try, and whether it goes on by another one after a failure. Pure."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from api_contracts import ErrorCode
from worker.failures.failure import Failure, Route
from worker.request.retries import CALL_TIME_S

ELSEWHERE: Final = frozenset({ErrorCode.MODEL_UNAVAILABLE, ErrorCode.PERMISSION_DENIED})
"""Final answers of one route that say nothing of another."""

OF_THE_ACCOUNT: Final = frozenset({ErrorCode.RATE_LIMITED, ErrorCode.QUOTA_EXHAUSTED})
"""Refusals that every route of the same account would give."""


@dataclass(frozen=True, slots=True)
class RouteMap:
    """The account of each route, and the models that it serves; None is every model."""

    accounts: Mapping[str, str]
    models: Mapping[str, Collection[str] | None]

    def others(self, model: str, tried: Collection[str], failure: Failure, route: str) -> bool:
        """Whether a route for this model was not tried, and would not refuse for what `route` refused for."""
        shunned = {self.accounts.get(route)} if failure.code in OF_THE_ACCOUNT else set[str | None]()
        return any(
            name not in tried and name != route and account not in shunned and self._serves(name, model)
            for name, account in self.accounts.items()
        )

    def _serves(self, route: str, model: str) -> bool:
        models = self.models[route]
        return models is None or model in models


ONE_ROUTE: Final = RouteMap({}, {})
"""There is no other route to go by."""


def may_move(failure: Failure, *, attempts_left: bool, time_left_s: float) -> bool:
    """Whether another route may do better, in the attempts and the time that are left."""
    if time_left_s < CALL_TIME_S:
        return False
    if failure.route is Route.ANSWER:
        return failure.code in ELSEWHERE
    return attempts_left
