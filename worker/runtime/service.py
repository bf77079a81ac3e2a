"""One worker process on its event loop: jobs that go on as long as it lives, and the way out.

`drain` begins the end: readiness drops and no more work is taken. Then requests are finished or handed back
(`draining.py`), the jobs stop, lease renewal stops, clients close.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from worker.gateway.gateways import Gateways
from worker.queue.keeper import Keeper
from worker.queue.lease_renewer import LeaseRenewer
from worker.queue.ledger import Ledger
from worker.request.ports import CheckerPort
from worker.runtime.draining import drain
from worker.runtime.executor import Executor
from worker.storage.scripts import ScriptRunner
from worker.telemetry import log
from worker.telemetry.observer import Observer

HEARTBEAT_S: Final = 1.0

Job = Callable[[], Coroutine[Any, Any, None]]


@dataclass(slots=True, kw_only=True)
class Service:
    """Everything one process needs to run requests; `wiring.build` makes it."""

    executor: Executor
    fetch: Job
    jobs: Mapping[str, Job]
    """The other loops that run as long as the process lives, by name."""
    ledger: Ledger
    keeper: Keeper
    renewer: LeaseRenewer
    observer: Observer
    gateways: Gateways
    checker: CheckerPort
    runner: ScriptRunner
    lanes: Mapping[str, int]
    shutdown_grace: timedelta
    started: bool = False

    async def run(self) -> None:
        """Serves until drained. Raises the error of a job that broke, if one did."""
        self.renewer.start()
        fetching = asyncio.create_task(self.fetch(), name="fetcher")
        own: dict[str, Job] = {"heartbeat": self._beat}
        jobs = [asyncio.create_task(job(), name=name) for name, job in {**self.jobs, **own}.items()]
        drained = asyncio.create_task(self.executor.draining.wait())
        self.started = True
        log("worker.started", lanes=list(self.lanes), concurrency=self.executor.places.limit)
        await asyncio.wait([fetching, *jobs, drained], return_when=asyncio.FIRST_COMPLETED)
        broken = [job for job in (fetching, *jobs) if job.done()]
        await self._leave(fetching, jobs)
        for job in broken:
            job.result()

    def drain(self) -> None:
        """Begins to leave; call it on the loop."""
        self.executor.draining.set()

    @property
    def ready(self) -> bool:
        return not self.executor.draining.is_set()

    async def _leave(self, fetching: "asyncio.Task[None]", jobs: "list[asyncio.Task[None]]") -> None:
        log("worker.draining", in_flight=len(self.executor.held))
        self.drain()
        await drain(self.executor, fetching, self.shutdown_grace.total_seconds())
        stranded, left = len(self.executor.held), [*self.executor.tasks, fetching, *jobs]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await self.keeper.leave()
        self.renewer.stop()
        await self.gateways.aclose()
        await self.checker.close()
        await self.runner.aclose()
        log("worker.stopped", stranded=stranded)

    async def _beat(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self.renewer.beat()
            due = loop.time() + HEARTBEAT_S
            await asyncio.sleep(HEARTBEAT_S)
            self.observer.tick(self.executor.load(), loop.time() - due)
