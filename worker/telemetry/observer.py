"""The one listener of a process: every event of the rooms below becomes lines, numbers, incidents and traces."""

from dataclasses import dataclass

from worker.telemetry.process_observer import Load, ProcessObserver
from worker.telemetry.request_observer import RequestObserver


@dataclass(kw_only=True)
class Observer(RequestObserver, ProcessObserver):
    """Implements `worker.request.events.Events`; one per process."""

    def tick(self, load: Load, late_s: float) -> None:
        self.metrics.useful_concurrency.set(self.useful_concurrency(self.per_minute))
        super().tick(load, late_s)
