"""Runs deliveries, each in a task of its own, and says how many more this process can take."""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from worker.admission.places import Places
from worker.operations.registry import Holding
from worker.queue.claims import Delivery
from worker.queue.maintenance import Maintenance
from worker.request.decisions import Disposition
from worker.request.execution import Execution, Interruption
from worker.request.held import HeldRequests
from worker.request.quarantine import Quarantine
from worker.runtime.task_runner import TaskRunner
from worker.storage.scripts import ScriptError
from worker.telemetry.observer import Observer
from worker.telemetry.process_observer import Load


@dataclass(slots=True, kw_only=True)
class Executor:
    """One per process, on one event loop: it holds deliveries for each of its places, and some ready for the next.

    It takes no more work while those that it holds have `memory` bytes.
    """

    task_runner: TaskRunner
    observer: Observer
    maintenance: Maintenance
    places: Places
    ended: Callable[[str], object]
    """Hears the token of each delivery that is over."""
    memory: int
    held: HeldRequests
    quarantine: Quarantine = field(default_factory=Quarantine)
    taken: int = 0
    """Deliveries since the start."""
    freed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set whenever a place may have become free."""
    draining: asyncio.Event = field(default_factory=asyncio.Event)
    tasks: "set[asyncio.Task[None]]" = field(default_factory=set["asyncio.Task[None]"])

    def vacancies(self) -> int:
        """The number of further deliveries that are worth taking now; few for later calls are taken together later."""
        if not self.takes() or (self.held and self.room() <= 0):
            return 0
        ahead = self.places.ahead
        vacancies = self.places.limit + ahead - len(self.held)
        return vacancies if vacancies > ahead // 2 else 0

    def idle(self) -> bool:
        """Whether a call could start at once."""
        return self.vacancies() > self.places.ahead

    def room(self) -> int:
        """The number of further bytes that this process may take; not positive: none, unless it holds nothing."""
        return self.memory - self.held.bytes

    def takes(self) -> bool:
        """Whether this process takes work at all."""
        if not self.observer.redis_up:
            return False  # what Redis refuses of one request it may refuse of all, once they are paid for
        if self.quarantine.closed:
            return False
        return not self.draining.is_set() and self.maintenance.backlog is None

    def load(self) -> Load:
        """The deliveries of this process; safe from any thread."""
        held = list(self.held)
        return Load(
            held=len(held),
            calling=sum(execution.calling for execution in held),
            concurrency=self.places.limit,
            draining=self.draining.is_set(),
            backlogged=self.maintenance.backlog is not None,
        )

    def holds(self) -> Mapping[str, Holding]:
        """The deliveries of this process by lane."""
        counts = Counter((execution.delivery.lane, execution.calling) for execution in self.held)
        lanes = {lane for lane, _ in counts}
        return {lane: Holding(counts[lane, False], counts[lane, True]) for lane in lanes}

    def start(self, delivery: Delivery) -> None:
        execution = Execution(delivery)
        self.held.add(execution)
        self.taken += 1
        if self.draining.is_set():
            execution.interrupt(Interruption.DRAINING)
        task = asyncio.create_task(self._process(execution))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def interrupt(self, task_id: str, why: Interruption) -> int:
        """Stops what this process runs of one Celery task; returns how many executions there were."""
        found = [each for each in self.held if each.message and each.message.task_id == task_id]
        for execution in found:
            execution.interrupt(why)
        return len(found)

    async def _process(self, execution: Execution) -> None:
        disposition: Disposition | None = None
        try:
            self.observer.request_began(execution)
            disposition = await self.task_runner.run(execution)
        except ScriptError as error:
            self.observer.request_refused(execution, error)
        except Exception as bug:  # noqa: BLE001  # one request must not take its neighbours down
            self.observer.request_crashed(execution, bug)
        finally:
            self.held.remove(execution)
            self.ended(execution.delivery.token)
            self.freed.set()
            if disposition is not None:
                self.observer.request_finished(execution, disposition)
