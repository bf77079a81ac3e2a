"""Several accounts in the simulation, each with its gateway and its controller; a call goes where there is room."""

import random
from dataclasses import dataclass

from oracles.controller import slow_start
from oracles.sim_controller import Controller

from bench.sim_gateway import Fleet, Gateway, Processes
from bench.sim_report import Call, Work


@dataclass(slots=True, eq=False)
class Account:
    """One account, and how many calls it was given."""

    gateway: Gateway
    controller: Controller
    granted: int = 0

    @classmethod
    def learning(cls, gateway: Gateway, learners: int) -> "Account":
        """One of so many whose limits are unknown."""
        controller = Controller(now_ms=0)
        slow_start.begin(controller.state, 0, learners)
        return cls(gateway, controller)

    @property
    def headroom(self) -> float:
        """The calls that may start now."""
        state = self.controller.state
        if state.slow.window:
            return max(0.001, state.slow.window - state.slow.young - state.slow.older)
        return max(0.001, state.requests_ms / self.controller.request_ms)


class AccountsFleet(Fleet):
    """Processes that choose an account for each call, as `choice.lua` does for routes of one order."""

    def __init__(
        self, rng: random.Random, accounts: list[Account], work: dict[str, Work], processes: Processes
    ) -> None:
        super().__init__(rng, accounts[0].controller, accounts[0].gateway, work, processes)
        self.accounts = accounts
        self.chosen: list[tuple[Account, int]] = []
        """Of each call by its number: the account, and the call's number there."""

    def grants(self, lane: str, costs: list[int]) -> tuple[int, float]:
        for granted, cost in enumerate(costs):
            if (wait_ms := self._choose(lane, cost)) > 0:
                return granted, wait_ms
        return len(costs), 0.0

    def granted_since(self, call: Call) -> int:
        account, number = self.chosen[call.number - 1]
        return account.granted - number

    def arrive(self, call: Call) -> None:
        self._turn_to(call)
        super().arrive(call)

    def answer(self, call: Call) -> None:
        self._turn_to(call)
        super().answer(call)

    def refuse(self, call: Call, retry_after_ms: float) -> None:
        self._turn_to(call)
        super().refuse(call, retry_after_ms)

    def _choose(self, lane: str, cost: int) -> float:
        """Takes an account; how long to wait where none has room."""
        left, soonest_ms = list(self.accounts), float("inf")
        while left:
            account = self.rng.choices(left, [one.headroom for one in left])[0]
            granted, wait_ms = account.controller.admit(self.now_ms, lane, self.weights[lane], [cost])
            if granted:
                account.granted += 1
                self.chosen.append((account, account.granted))
                return 0.0
            soonest_ms = min(soonest_ms, wait_ms)
            left.remove(account)
        return soonest_ms

    def _turn_to(self, call: Call) -> None:
        account, _ = self.chosen[call.number - 1]
        self.controller, self.gateway = account.controller, account.gateway
