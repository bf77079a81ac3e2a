"""Celery's pool, as one asyncio loop that takes its own work.

Celery hosts the process: its blueprint, its signals, its remote control. It consumes nothing, because kombu pops
a message and records it in two steps: a kill between them loses it (7 of 16 kills under load), a dropped connection
runs everything in flight twice, and a message that is not JSON ends the worker. Here one Lua script takes many
messages and leases them at once, and every request is a coroutine on one loop.
"""

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, Final, TypeVar

import uvloop
from celery.concurrency.base import BasePool
from celery.worker import state

from worker.assembly import build
from worker.service import HANDBACK_S, Service
from worker.settings import Settings
from worker.telemetry import log_exception

T = TypeVar("T")

_START_S: Final = 30.0
_LEAVE_MARGIN_S: Final = HANDBACK_S + 5.0


class Pool(BasePool):
    """One thread, one event loop, up to `limit` requests at once."""

    settings: Settings
    """Set by the app before the worker is built."""

    def on_start(self) -> None:
        self._ready: Future[Service] = Future()
        self._thread = threading.Thread(target=self._serve, name="requests", daemon=True)
        self._thread.start()
        self.service = self._ready.result(_START_S)

    def on_stop(self) -> None:
        """Returns when every request is finished or handed back, or could not be in time."""
        self.drain()
        self._thread.join(self.settings.shutdown_grace.total_seconds() + _LEAVE_MARGIN_S)

    on_terminate = on_stop

    def drain(self) -> None:
        """Begins to leave; safe in a signal handler and from any thread, any number of times."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: there is nothing left to drain
            self._loop.call_soon_threadsafe(self.service.drain)

    def submit(self, work: Callable[[Service], Coroutine[Any, Any, T]]) -> "Future[T]":
        """Runs a coroutine beside the requests, from any thread."""
        return asyncio.run_coroutine_threadsafe(work(self.service), self._loop)

    def on_apply(self, *_: Any, **__: Any) -> None:
        raise NotImplementedError("requests are taken from their lanes, not applied")

    def _get_info(self) -> dict[str, Any]:
        return {
            "implementation": f"{type(self).__module__}:{type(self).__name__}",
            "max-concurrency": self.settings.concurrency,
            "in-flight": len(self.service.runs),
            "taken": self.service.taken,
            "lanes": self.service.weights,
        }

    def _serve(self) -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                self._loop = runner.get_loop()
                runner.run(self._main())
        except Exception as error:  # noqa: BLE001  # the process must not live on without its loop
            log_exception("worker.failed", error)
            if not self._ready.done():
                self._ready.set_exception(error)
            state.should_stop = os.EX_SOFTWARE

    async def _main(self) -> None:
        service = build(self.settings)
        self._ready.set_result(service)
        await service.run()
