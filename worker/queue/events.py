"""The reports of this room: deliveries that changed hands, results that nobody reads, scripts that refused."""

from collections.abc import Sequence
from typing import Protocol

from worker.queue.claims import Backlog, Reclaimed
from worker.storage.scripts import ScriptError


class QueueEvents(Protocol):
    def deliveries_reclaimed(self, reclaimed: Sequence[Reclaimed]) -> None:
        """These deliveries of silent workers went back to their lanes."""
        ...

    def leases_lost(self, tokens: set[str]) -> None:
        """Other workers took over these deliveries while this process held them; called from a thread."""
        ...

    def backlog_changed(self, backlog: Backlog | None) -> None:
        """A result stream passed the high-water mark, or None: no stream is above it any more."""
        ...

    def script_refused(self, error: ScriptError) -> None:
        """The ledger refused a step; the next round tries again."""
        ...
