"""The asyncio side of one worker process: intake, runs, housekeeping, and the way out.

Leaving, in this order:

1. `drain`: readiness drops and the intake stops taking.
2. What is claimed but has no call in flight is handed back at once; it cost nothing.
3. Calls in flight go on for `shutdown_grace`; what they answered is paid for and waits as long for Redis to take it.
4. What is left is interrupted and handed back: no attempt spent, marked `maybe_billed`.
5. Renewal stops, clients close.

Nothing here waits longer than the grace plus a few seconds, and for Redis alone only those seconds: what it cannot
take back now, the reclaimer of another worker finds when the lease has run out.
"""

import asyncio
import itertools
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from api_contracts.queues import cancel_key
from worker.admission.admission_queue import AdmissionQueues
from worker.admission.client import Admission
from worker.gateway.upstream import Upstream
from worker.queue.claims import Delivery
from worker.queue.deltas import DeltaRelay
from worker.queue.fetcher import Fetcher, Shares
from worker.queue.lease_renewer import LeaseRenewer
from worker.queue.ledger import Ledger
from worker.queue.maintenance import Maintenance
from worker.queue.queued_cancellation import QueuedCancellation
from worker.request.execution import Execution, Interruption
from worker.request.processor import Disposition, Processor
from worker.runtime.task_runner import TaskRunner
from worker.storage.scripts import ScriptError, ScriptRunner
from worker.telemetry import log
from worker.telemetry.process_observer import Load, ProcessObserver
from worker.telemetry.request_observer import RequestObserver

HEARTBEAT_S: Final = 1.0
CANCEL_S: Final = 0.5
"""How often this process looks whether what it runs was cancelled: one script call for all of it."""

HANDBACK_S: Final = 2.0
"""How long handing back may take once there is nothing to wait for but Redis."""

LOOK_S: Final = 0.1
"""How often a draining process looks whether calls are still in flight."""


@dataclass(slots=True, kw_only=True)
class Service:
    """Everything one process needs to run requests; `assembly.build` wires it."""

    runner: ScriptRunner
    ledger: Ledger
    admission: Admission
    rooms: AdmissionQueues
    upstream: Upstream
    relay: DeltaRelay
    processor: Processor
    task_runner: TaskRunner
    keeper: LeaseRenewer
    housekeeping: Maintenance
    observer: RequestObserver
    watch: ProcessObserver
    weights: dict[str, int]
    concurrency: int
    shutdown_grace: timedelta
    runs: dict[str, Execution]
    """Deliveries this process holds, by token; shared with the lease keeper's thread."""
    taken: int = 0
    started: bool = False
    _intake: Fetcher = field(init=False)
    _sweep: QueuedCancellation = field(init=False)
    _tasks: "set[asyncio.Task[None]]" = field(default_factory=set["asyncio.Task[None]"])
    _draining: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self._intake = Fetcher(self.ledger, Shares(self.weights), self._places, self.rooms.vacancies, self._start)
        self._sweep = QueuedCancellation(
            self.runner, self.ledger, self.weights, self.processor.policy.max_body, self._takes, self._start
        )

    async def run(self) -> None:
        """Serves until drained. Raises what broke, if something did."""
        self.keeper.start()
        jobs: dict[str, Coroutine[Any, Any, None]] = {
            "pump": self.rooms.pump(),
            "intake": self._intake.run(),
            "sweep": self._sweep.run(),
            "housekeeping": self.housekeeping.run(),
            "relay": self.relay.pump(),
            "cancellations": self._heed_cancellations(),
            "heartbeat": self._beat(),
        }
        background = {name: asyncio.create_task(job, name=name) for name, job in jobs.items()}
        drained = asyncio.create_task(self._draining.wait())
        self.started = True
        log("worker.started", lanes=list(self.weights), concurrency=self.concurrency)
        await asyncio.wait([*background.values(), drained], return_when=asyncio.FIRST_COMPLETED)
        broken = [job for job in background.values() if job.done()]
        await self._leave(background)
        for job in broken:
            job.result()

    def drain(self) -> None:
        """Begins to leave; call it on the loop."""
        self._draining.set()

    @property
    def ready(self) -> bool:
        return not self._draining.is_set()

    def load(self) -> Load:
        """What this process holds; safe from any thread."""
        runs = list(self.runs.values())
        return Load(
            held=len(runs),
            calling=sum(run.calling for run in runs),
            concurrency=self.concurrency,
            draining=self._draining.is_set(),
            backlogged=self.housekeeping.backlog is not None,
        )

    def interrupt(self, task_id: str, why: Interruption) -> int:
        """Stops this process' runs of one Celery task; returns how many there were."""
        found = [run for run in self.runs.values() if run.message and run.message.task_id == task_id]
        for run in found:
            run.interrupt(why)
        return len(found)

    async def _leave(self, background: "dict[str, asyncio.Task[None]]") -> None:
        log("worker.draining", in_flight=len(self.runs))
        self._draining.set()
        background["intake"].cancel()
        for run in list(self.runs.values()):
            if not run.calling:
                run.interrupt(Interruption.DRAINING)
        await self._wait_for_calls(background["intake"])
        for run in list(self.runs.values()):
            run.interrupt(Interruption.DRAINING)
        await self._wait(HANDBACK_S)
        stranded, left = len(self.runs), [*self._tasks, *background.values()]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        self.keeper.stop()
        await self.upstream.aclose()
        await self.runner.aclose()
        log("worker.stopped", stranded=stranded)

    async def _wait_for_calls(self, intake: "asyncio.Task[None]") -> None:
        """Until all is done, the grace is over, or nothing that costs money has been under way for a while."""
        now = time.monotonic()
        grace_ends, patience_ends = now + self.shutdown_grace.total_seconds(), now + HANDBACK_S
        while now < grace_ends and now < patience_ends and (self._tasks or not intake.done()):
            await self._wait(LOOK_S, intake)  # what a pop under way took is held, too
            now = time.monotonic()
            if any(run.on_the_wire or run.answer for run in list(self.runs.values())):
                patience_ends = now + HANDBACK_S

    async def _wait(self, seconds: float, *others: "asyncio.Task[None]") -> None:
        pending = [task for task in (*self._tasks, *others) if not task.done()]
        if pending:
            await asyncio.wait(pending, timeout=seconds)

    def _places(self) -> int:
        """How many more deliveries this process can hold."""
        return self.concurrency - len(self.runs) if self._takes() else 0

    def _takes(self) -> bool:
        """Whether this process takes work at all."""
        if not self.watch.redis_up:
            return False  # what Redis refuses of one request it may refuse of all, once they are paid for
        return not self._draining.is_set() and self.housekeeping.backlog is None

    def _start(self, delivery: Delivery) -> None:
        run = Execution(delivery)
        self.runs[delivery.token] = run
        self.taken += 1
        if self._draining.is_set():
            run.interrupt(Interruption.DRAINING)
        task = asyncio.create_task(self._process(run))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _process(self, run: Execution) -> None:
        disposition: Disposition | None = None
        self.observer.begins(run)
        try:
            disposition = await self.task_runner.run(run)
        except ScriptError as error:
            self.observer.refused(run, error)
        except Exception as bug:  # noqa: BLE001  # one request must not take its neighbours down
            self.observer.bug(bug)
        finally:
            self.runs.pop(run.delivery.token, None)
            self._intake.room.set()
            if disposition is not None:
                self.observer.finished(run, disposition)

    async def _heed_cancellations(self) -> None:
        while True:
            await asyncio.sleep(CANCEL_S)
            messages = [(run, run.message) for run in self.runs.values()]
            keys = {cancel_key(message.tenant, message.request_id): run for run, message in messages if message}
            if not keys:
                continue
            cancelled = await self.ledger.cancelled(list(keys))
            for run in itertools.compress(keys.values(), cancelled):
                run.interrupt(Interruption.CANCELLED)

    async def _beat(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self.keeper.beat()
            due = loop.time() + HEARTBEAT_S
            await asyncio.sleep(HEARTBEAT_S)
            self.watch.tick(loop.time() - due)
