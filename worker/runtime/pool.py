"""Celery's pool, as one asyncio loop that takes its own work.

Celery hosts the process: its blueprint, its signals, its remote control. It consumes nothing, because kombu pops
a message and records it in two steps: a kill between them loses it (7 of 16 kills under load), a dropped connection
runs everything in flight twice, and a message that is not JSON ends the worker. Here one Lua script takes many
messages and leases them at once, and every request is a coroutine on one loop.
"""

import asyncio
import contextlib
import gc
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, Final, TypeVar, cast

import uvloop
from celery.concurrency.base import BasePool
from celery.worker import state

from worker.config.settings import Settings
from worker.failures.classes import State
from worker.operations.route_view import places_of, table_of
from worker.request.held import HeldRequests
from worker.request.processor import Processor
from worker.runtime.celery_events import CeleryEvents
from worker.runtime.draining import HANDBACK_S
from worker.runtime.fleet_metrics import FleetCollector
from worker.runtime.memory import give_back_large_blocks
from worker.runtime.probes import Probes, ProbeServer
from worker.runtime.service import Service
from worker.runtime.task_runner import TaskRunner
from worker.runtime.vitals import Vitals
from worker.runtime.wiring import build, observer
from worker.tasks import TASKS
from worker.telemetry import log, log_exception, loop_exception
from worker.telemetry.reports import Facts
from worker.telemetry.sentry import Sentry

T = TypeVar("T")

_START_S: Final = 30.0
_LEAVE_MARGIN_S: Final = HANDBACK_S + 5.0


class Pool(BasePool):
    """One thread, one event loop, up to `limit` requests at once."""

    app: Any
    """Ours, of `worker.runtime.celery_app`: it has `settings`, `sentry` and `traces`."""
    service: Service
    consumer: Any = None
    """Celery's; set once it has a connection."""
    _serving: Service | None = None
    _thread: threading.Thread | None = None
    _probes: ProbeServer | None = None
    _events: CeleryEvents | None = None

    @property
    def settings(self) -> Settings:
        return self.app.settings

    @property
    def sentry(self) -> Sentry:
        return self.app.sentry

    def on_start(self) -> None:
        give_back_large_blocks()
        self._ready: Future[Service] = Future()
        self.vitals = Vitals(
            service=lambda: self._serving,
            threads=lambda: {
                State.LOOP_STALLED: self._thread and self._thread.ident,
                State.CONSUMER_STALLED: threading.main_thread().ident,
            },
        )
        self._thread = threading.Thread(target=self._serve, name="requests", daemon=True)
        self._thread.start()
        try:
            self.service = self._serving = self._ready.result(_START_S)
            self._probes = self._open_probes(self.service)
            # The objects of the start stay for good: walking them again every few hundred objects frees nothing.
            gc.freeze()
            gc.set_threshold(20_000, 20, 20)
        except BaseException:
            self.on_stop()  # Celery stops nothing that did not start
            raise

    def on_stop(self) -> None:
        """Returns when every request is finished or handed back, or could not be in time, and Sentry was told."""
        self.drain()
        if self._thread is not None:
            self._thread.join(self.settings.shutdown_grace.total_seconds() + _LEAVE_MARGIN_S)
        if self._serving is not None:
            self._serving.observer.incidents.flush()
        if self._events is not None:
            self._events.close()
        self.sentry.close()
        self.app.traces.close()
        if self._probes is not None:
            self._probes.close()

    on_terminate = on_stop

    def drain(self) -> None:
        """Begins to leave; safe in a signal handler and from any thread, any number of times."""
        self.vitals.consumer.rest()
        if self._serving is None:
            return
        with contextlib.suppress(RuntimeError):  # the loop is closed: there is nothing left to drain
            self._loop.call_soon_threadsafe(self._serving.drain)

    def submit(self, work: Callable[[Service], Coroutine[Any, Any, T]]) -> "Future[T]":
        """Runs a coroutine beside the requests, from any thread."""
        return asyncio.run_coroutine_threadsafe(work(self.service), self._loop)

    def on_apply(self, *_: Any, **__: Any) -> None:
        raise NotImplementedError("requests are taken from their lanes, not applied")

    def _get_info(self) -> dict[str, Any]:
        return {
            "implementation": f"{type(self).__module__}:{type(self).__name__}",
            "max-concurrency": self.settings.concurrency,
            "in-flight": len(self.service.executor.held),
            "taken": self.service.executor.taken,
            "lanes": dict(self.service.lanes),
        }

    def _serve(self) -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                self._loop = runner.get_loop()
                runner.run(self._main())
        except Exception as error:  # noqa: BLE001  # the process must not live on without its loop
            log_exception("worker.failed", error)
            told = (
                self._serving.observer
                if self._serving
                else observer(self.settings, self.sentry, HeldRequests(), self.app.traces)
            )
            told.incidents.crashed(error, Facts(upstream="worker"), State.WORKER_FAILED)
            if not self._ready.done():
                self._ready.set_exception(error)
            state.should_stop = os.EX_SOFTWARE

    async def _main(self) -> None:
        asyncio.get_running_loop().set_exception_handler(loop_exception)
        service = build(self.settings, self.sentry, self.app.traces, self._task_runner)
        self._ready.set_result(service)
        await service.run()

    def _task_runner(self, processor: Processor) -> TaskRunner:
        tasks = {name: self.app.tasks[name] for name in TASKS}
        options = cast("dict[str, Any]", self.options)  # pyright: ignore[reportUnknownMemberType]  # celery has no types
        _, hostname = options["initargs"]
        if self.settings.celery_events:
            self._events = CeleryEvents(lambda: self._dispatcher(hostname))
        return TaskRunner(
            processor=processor, tasks=tasks, hostname=hostname, consumer=lambda: self.consumer, events=self._events
        )

    def _dispatcher(self, hostname: str) -> Any:
        return self.app.events.Dispatcher(
            self.app.connection_for_write(), hostname=hostname, buffer_while_offline=False, enabled=True
        )

    def _open_probes(self, service: Service) -> ProbeServer:
        """Raises SystemExit, with one clear line, where the port is taken."""
        registry = service.observer.metrics.registry
        settings = self.settings
        registry.register(
            FleetCollector(
                settings.redis.client,
                tuple(settings.lanes),
                settings.fleet,
                settings.queue_target,
                places_of(table_of(settings)),
            )
        )
        probes = Probes(
            live=self.vitals.live,
            ready=self.vitals.ready,
            metrics=registry,
            metrics_from=self.settings.metrics_from,
        )
        try:
            return ProbeServer(self.settings.http_port, probes)
        except OSError as error:
            reason = f"{os.strerror(error.errno or 0)}; WORKER_HTTP_PORT=0 takes any free port"
            log("worker.failed", "error", port=self.settings.http_port, reason=reason)
            raise SystemExit(os.EX_CONFIG) from None
