"""The Celery application: `celery -A worker.app worker` and `responses-worker run` start the same worker.

Celery stays recognisable where its users touch it: messages, priorities, `expires`, `eta`, `revoke`, and
`inspect ping/active/stats`. What runs the requests is `worker.runtime.pool`.
"""

import os
import signal
import socket
import sys
from functools import cached_property
from types import FrameType
from typing import Any, Final, cast

from celery import Celery, bootsteps
from celery.apps.worker import Worker as CeleryWorker
from celery.signals import setup_logging
from celery.worker import state

from api_contracts.queues import TASK_NAME
from worker import __version__, telemetry
from worker.config.sentry_settings import load_sentry
from worker.config.settings import Settings, WrongSettingsError, check_key_file, load
from worker.runtime import remote_control as remote
from worker.runtime.pool import Pool
from worker.telemetry import sentry

_WRONG_SETTINGS: Final = 2


class Worker(CeleryWorker):
    """A worker that consumes nothing through kombu and leaves the way `worker.runtime.service` says."""

    def setup_queues(self, include: Any, exclude: Any = None) -> None:
        """Selects, then deselects all there are: WORKER_LANES says what is served, and kombu serves none of it."""
        super().setup_queues(include, exclude)  # pyright: ignore[reportUnknownMemberType]  # celery has no types
        queues: Any = cast("Any", self.app).amqp.queues
        queues.deselect(list(queues))

    def install_platform_tweaks(self, worker: Any) -> None:  # noqa: ARG002  # Celery passes the worker to itself
        """Instead of Celery's own handlers: its warm shutdown waits without limit, its cold one loses requests."""
        signal.signal(signal.SIGTERM, self._leave)
        signal.signal(signal.SIGINT, self._leave)
        signal.signal(signal.SIGQUIT, self._leave)

    def _leave(self, _signal: int, _frame: FrameType | None) -> None:
        """The first signal drains; a second one leaves now, and leases bring back what was held."""
        if state.should_stop is not None:
            os._exit(os.EX_SOFTWARE)
        state.should_stop = os.EX_OK
        if self.pool is not None:
            self.pool.drain()


class Pulse(bootsteps.StartStopStep):
    """Beats from Celery's own timer while its consumer has a connection; without one it may be silent."""

    requires = ("celery.worker.consumer:Control",)

    def start(self, parent: Any) -> None:
        beat = parent.pool.vitals.consumer.beat
        beat()  # so that a consumer that never gets going is missed as well
        parent.timer.call_repeatedly(1.0, beat)

    def stop(self, parent: Any) -> None:
        parent.pool.vitals.consumer.rest()

    shutdown = stop


class App(Celery):
    """Celery with a worker of ours, for `celery -A worker.app worker` as well."""

    @cached_property
    def Worker(self) -> Any:  # noqa: N802  # pyright: ignore[reportIncompatibleVariableOverride]  # Celery's own hook
        return cast("Any", self).subclass_with_self("worker.app:Worker")


def create_app(settings: Settings) -> Any:
    """The app for one process; `settings` decide where its broker is and what its pool serves.

    Raises WrongSettingsError for wrong SENTRY_ variables, and for a key file that cannot be read.
    """
    check_key_file(settings)
    app: Any = App("responses-worker", set_as_current=True)
    app.conf.update(
        broker_url=settings.redis.broker_url,
        broker_transport_options=settings.redis.broker_options(),
        broker_connection_retry_on_startup=True,  # Redis may start after us
        broker_connection_max_retries=None,  # an outage must not end the worker
        broker_channel_error_retry=True,  # READONLY after a failover, OOM
        task_default_queue="responses.interactive",
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        worker_pool="worker.runtime.pool:Pool",
        worker_concurrency=settings.concurrency,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        enable_utc=True,
    )
    app.steps["consumer"].add(Pulse)
    Pool.settings, Pool.sentry = settings, sentry.NoSentry(load_sentry().options)
    app.task(name=TASK_NAME)(_create)
    return app


_REMOTE_CONTROL = remote
"""Imported for what it registers with Celery."""


def _create(envelope: dict[str, Any]) -> None:
    """Registers the task's name and signature; its work is done by `worker.request.processor`."""
    raise NotImplementedError("responses.create runs in a responses-worker; enqueue it with .delay() or send_task()")


@cast("Any", setup_logging).connect
def _logging(**_: Any) -> None:
    settings, options = Pool.settings, Pool.sentry.options
    telemetry.configure(
        settings.log_format,
        settings.log_level,
        service="responses-worker",
        version=__version__,
        environment=options.environment,
        host=socket.gethostname(),
        pid=os.getpid(),
    )
    Pool.sentry = sentry.start(options)


def run(settings: Settings) -> int:
    """Runs a worker in this process until it is told to leave; returns the exit code."""
    try:
        app = create_app(settings)
    except WrongSettingsError as error:
        sys.stderr.write(f"{error}\n")
        return _WRONG_SETTINGS
    worker = app.Worker(
        quiet=True,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        concurrency=settings.concurrency,
    )
    worker.start()
    return worker.exitcode or 0


def __getattr__(name: str) -> Any:
    """`celery -A worker.app` finds `app` here, made of the environment on first use."""
    if name not in ("app", "celery"):
        raise AttributeError(name)
    try:
        return create_app(load())
    except WrongSettingsError as error:
        sys.exit(str(error))
