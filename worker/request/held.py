"""The requests that one process holds at a time."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from worker.request.execution import Execution


@dataclass(slots=True)
class HeldRequests:
    """Executions by delivery token. One thread adds and removes; any thread may read."""

    bytes: int = 0
    """Their share of the process' memory together."""
    _executions: dict[str, Execution] = field(default_factory=dict[str, Execution])

    def __len__(self) -> int:
        return len(self._executions)

    def __iter__(self) -> Iterator[Execution]:
        """Goes over those held now, whatever is added or removed meanwhile."""
        return iter(list(self._executions.values()))

    def add(self, execution: Execution) -> None:
        self._executions[execution.delivery.token] = execution
        execution.grown = self._grow
        execution.weigh()

    def remove(self, execution: Execution) -> None:
        if self._executions.pop(execution.delivery.token, None) is not None:
            self._grow(-execution.weight)

    def _grow(self, by: int) -> None:
        self.bytes += by

    def leases(self) -> list[tuple[str, str]]:
        """Lane and token of each."""
        return [(execution.delivery.lane, execution.delivery.token) for execution in self]

    def oldest_age_s(self) -> float | None:
        """Seconds since the longest waiting of them was enqueued; None where none is claimed."""
        ages_ms = [each.now_ms - each.lease.enqueued_at_ms for each in self if each.claimed]
        return max(ages_ms) / 1000 if ages_ms else None
