"""The reports of this room: grants, the state of the gate, scripts that refused."""

from collections.abc import Sequence
from typing import Protocol

from worker.admission.grants import Ask, Gate, Grant
from worker.storage.scripts import ScriptError


class AdmissionEvents(Protocol):
    def calls_granted(self, asked: Sequence[Ask], grant: Grant) -> None:
        """The budget answered one lane; `grant.answers` are in the order of `asked`."""
        ...

    def gate_changed(self, gate: Gate, code: str, *, upstream: str = "default") -> None:
        """This process learned that the gate shut, opened, or shut for another reason."""
        ...

    def gate_confirmed(self, gate: Gate, code: str, *, upstream: str = "default") -> None:
        """A second call met the same closed gate; one process of the fleet hears this once per outage."""
        ...

    def script_refused(self, error: ScriptError) -> None:
        """The script refused to grant calls; the next round tries again."""
        ...


class Unheard:
    """AdmissionEvents without a listener, for commands and tests."""

    def calls_granted(self, asked: Sequence[Ask], grant: Grant) -> None: ...
    def gate_changed(self, gate: Gate, code: str, *, upstream: str = "default") -> None: ...
    def gate_confirmed(self, gate: Gate, code: str, *, upstream: str = "default") -> None: ...
    def script_refused(self, error: ScriptError) -> None: ...
