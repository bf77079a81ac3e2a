"""One process of real parts between a real Redis and a real gateway; only the time of its Redis is the test's.

Redis' time stands still, jumps when what is left has to wait, and runs fast while something is under way.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
import redis

from support.awaits import CARRIED, Fault
from support.ledger_parts import LANES, LEASE_MS, Desk, open_desk
from support.movable_clock import on_movable_clock
from worker.admission import client as admission_client
from worker.admission import routed as admission_routed
from worker.admission.admission_queue import AdmissionQueues
from worker.admission.commands import ADMISSION
from worker.config.environment import load_settings
from worker.config.settings import Settings
from worker.operations.route_view import table_of
from worker.queue.claims import Delivery
from worker.queue.commands import DELIVERIES, RETURNS
from worker.queue.ledger import Ledger
from worker.queue.messages import Message, decode
from worker.request.processor import Processor
from worker.runtime.service import Service
from worker.runtime.task_runner import TaskRunner
from worker.runtime.wiring import build
from worker.storage import keys
from worker.tasks import TASKS
from worker.telemetry.otel import NoTraces
from worker.telemetry.sentry import NoSentry

ROUNDS: Final = 300
MAX_BODY: Final = 100_000
NUMBER: Final = re.compile(rb"task-(\d+)-")
"""The number of a message, from its task id."""

_ROUTES: Final = """
[accounts.first]
[accounts.second]
[routes.first]
url = "{url}"
key_env = "PATH"
account = "first"
[routes.second]
url = "{url}"
key_env = "PATH"
account = "second"
"""


@dataclass(kw_only=True)
class Road:
    """The process that requests pass."""

    desk: Desk
    service: Service
    scopes: Sequence[str]
    """Of the accounts and routes."""
    faults: Mapping[int, Fault] = field(default_factory=dict[int, Fault])

    @property
    def processor(self) -> Processor:
        return self.service.executor.task_runner.processor

    @property
    def queues(self) -> AdmissionQueues:
        queues = self.processor.queues
        assert isinstance(queues, AdmissionQueues)
        return queues

    def start(self, delivery: Delivery) -> None:
        """As the fetcher does, in a task that carries the fault of its request."""
        number = NUMBER.search(delivery.message)
        token = CARRIED.set(self.faults.get(int(number[1])) if number else None)
        self.service.executor.start(delivery)
        CARRIED.reset(token)

    async def drive(self, faults: Mapping[int, Fault] | None = None) -> None:
        """Goes on until nothing is left; what a delivery leaves without an end comes back by its lease."""
        self.faults = faults or {}
        for _ in range(ROUNDS):
            for delivery in (await self.service.ledger.pop({"interactive": 100})).deliveries:
                self.start(delivery)
            for row in (await self.service.ledger.reclaim(LANES)).lost:
                if row.handed:
                    self.start(row.handed)
            await self.ended()
            if not self.desk.places():
                return
            self.desk.advance(LEASE_MS // 4)
            await self.service.ledger.promote(LANES)

    def forget_calls(self) -> None:
        """The fleet knows nothing of its gateway."""
        for scope in self.scopes:
            self.desk.redis.delete(*keys.upstream(scope).values())

    async def ended(self) -> None:
        """Returns once nothing runs here."""
        async with asyncio.timeout(60):
            while tasks := list(self.service.executor.tasks):
                await asyncio.wait(tasks, timeout=0.01)
                self.desk.advance(200)

    async def lose(self, times: int, *, claimed: bool) -> None:
        """All that waits is taken by a process that dies, again and again."""
        for _ in range(times):
            other = Ledger(self.service.runner)
            while deliveries := (await other.pop({"interactive": 100})).deliveries:
                for delivery in deliveries if claimed else ():
                    found = decode(delivery.message, max_body=MAX_BODY)
                    assert isinstance(found, Message)
                    await other.claim(delivery, self.processor.policy.claim(delivery, found))
            for _ in range(6):
                await other.reclaim(LANES)
                await other.promote(LANES)
                self.desk.advance(LEASE_MS // 4)

    def held(self, *, permits_ms: int = 0) -> dict[str, int]:
        """All that is held for a request, here or in Redis, permits for so long; empty when nothing is."""
        executor, rooms = self.service.executor, self.queues.rooms
        permits = self.desk.redis.scan_iter("responses:permits:*")
        found = {
            **self.desk.places(),
            "executions": len(executor.held),
            "quarantined": self.processor.quarantine.running,
            "waiting": sum(len(room._waiters) for room in rooms.values()),  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # nothing else counts them
            "permits": sum(self.desk.redis.zcount(key, self.desk.now_ms + permits_ms, "+inf") for key in permits),
        }
        return {name: count for name, count in found.items() if count}


@asynccontextmanager
async def open_road(client: redis.Redis, url: str, gateway_url: str, path: Path, routes: int) -> AsyncGenerator[Road]:
    """One process; the jobs that carry requests on run, those of the lease are the test's."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (admission_client, admission_routed):
            patch.setattr(module, "ADMISSION", on_movable_clock(ADMISSION))
        for script in (ADMISSION, DELIVERIES, RETURNS):  # so that what leaves together is answered together
            client.script_load(on_movable_clock(script).insisting)
        settings = _settings(url, gateway_url, path, routes)
        async with open_desk(client, url) as desk, _open_service(settings) as service:
            yield (
                road := Road(desk=desk, service=service, scopes=[state.scope for state in table_of(settings).states])
            )
            road.forget_calls()  # these keys stay for good


def _settings(redis_url: str, gateway_url: str, path: Path, routes: int) -> Settings:
    file = path / "routes.toml"
    file.write_text(_ROUTES.format(url=gateway_url))
    own: dict[str, Any] = {
        "redis_url": redis_url,
        "upstream_url": gateway_url,
        "upstream_api_key": "sk-test",
        "max_body": MAX_BODY,
        "concurrency": 1000,
    }
    return load_settings(Settings, own | ({"config_file": file} if routes > 1 else {}))


@asynccontextmanager
async def _open_service(settings: Settings) -> AsyncGenerator[Service]:
    service = build(settings, NoSentry(), NoTraces(), _runner)
    jobs = [asyncio.create_task(service.jobs[name]()) for name in ("admission", "relay")]
    try:
        yield service
    finally:
        for job in jobs:
            job.cancel()
        ended = await asyncio.gather(*jobs, return_exceptions=True)
        await service.gateways.aclose()
        await service.checker.close()
        await service.runner.aclose()
    assert all(isinstance(each, asyncio.CancelledError) for each in ended), ended


def _runner(processor: Processor) -> TaskRunner:
    tasks = {name: _Task(name, run) for name, run in TASKS.items()}
    return TaskRunner(processor=processor, tasks=tasks, hostname="here", consumer=lambda: None)


@dataclass(frozen=True)
class _Task:
    """Celery's task object, as far as a runner looks at it."""

    name: str
    run: Any
