"""The one protocol that observers implement: the events of requests, joined with those of the rooms below."""

from typing import Protocol

from worker.admission.events import AdmissionEvents
from worker.gateway.upstream import Call
from worker.queue.events import QueueEvents
from worker.request.execution import Execution
from worker.storage.events import RedisEvents
from worker.storage.scripts import ScriptError


class RequestEvents(Protocol):
    def request_began(self, execution: Execution) -> None:
        """From here on the current task works for `execution`."""
        ...

    def call_ended(self, execution: Execution, call: Call) -> None:
        """The gateway's call ended by itself; an interrupted call is not reported."""
        ...

    def request_crashed(self, execution: Execution, error: Exception) -> None:
        """A defect of the worker; the caller gets `internal_error`."""
        ...

    def script_refused(self, error: ScriptError) -> None:
        """Admission refused the report of a call; its request goes on all the same."""
        ...

    def request_refused(self, execution: Execution, error: ScriptError) -> None:
        """The ledger refused a write of this request, for a reason that stays."""
        ...

    def request_finished(self, execution: Execution, disposition: str) -> None:
        """The delivery is over."""
        ...


class Events(RedisEvents, AdmissionEvents, QueueEvents, RequestEvents, Protocol):
    """Everything that one process reports. No method waits, and none decides what happens next."""
