"""A listener that remembers: what rooms report, for a test to look at."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from worker.admission.grants import Ask, Gate, Grant
from worker.gateway.upstream import Call
from worker.queue.claims import Backlog, Reclaimed
from worker.request.execution import Execution
from worker.storage.scripts import ScriptError


@dataclass
class Heard:
    """Implements `worker.request.events.Events`."""

    redis: list[str | None] = field(default_factory=list[str | None])
    """Errors with which Redis was lost; None: it came back."""
    reclaimed: list[Reclaimed] = field(default_factory=list[Reclaimed])
    lost: list[set[str]] = field(default_factory=list[set[str]])
    backlogs: list[Backlog | None] = field(default_factory=list[Backlog | None])
    refusals: list[ScriptError] = field(default_factory=list[ScriptError])
    gates: list[tuple[Gate, str]] = field(default_factory=list[tuple[Gate, str]])
    confirmed: list[tuple[Gate, str]] = field(default_factory=list[tuple[Gate, str]])
    calls: list[Call] = field(default_factory=list[Call])
    bugs: list[Exception] = field(default_factory=list[Exception])

    def redis_lost(self, error: str) -> None:
        self.redis.append(error)

    def redis_recovered(self) -> None:
        self.redis.append(None)

    def deliveries_reclaimed(self, reclaimed: Sequence[Reclaimed]) -> None:
        self.reclaimed.extend(reclaimed)

    def leases_lost(self, tokens: set[str]) -> None:
        self.lost.append(tokens)

    def backlog_changed(self, backlog: Backlog | None) -> None:
        self.backlogs.append(backlog)

    def script_refused(self, error: ScriptError) -> None:
        self.refusals.append(error)

    def calls_granted(self, asked: Sequence[Ask], grant: Grant) -> None: ...

    def gate_changed(self, gate: Gate, code: str, *, upstream: str = "default") -> None:  # noqa: ARG002  # the protocol's
        self.gates.append((gate, code))

    def gate_confirmed(self, gate: Gate, code: str, *, upstream: str = "default") -> None:  # noqa: ARG002  # the protocol's
        self.confirmed.append((gate, code))

    def request_began(self, execution: Execution) -> None: ...

    def call_ended(self, execution: Execution, call: Call) -> None:  # noqa: ARG002  # the protocol's
        self.calls.append(call)

    def request_crashed(self, execution: Execution, error: Exception) -> None:  # noqa: ARG002  # the protocol's
        self.bugs.append(error)

    def request_refused(self, execution: Execution, error: ScriptError) -> None:  # noqa: ARG002  # the protocol's
        self.refusals.append(error)

    def request_finished(self, execution: Execution, disposition: str) -> None: ...
