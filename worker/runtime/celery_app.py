"""The Celery application: what it knows of its broker, its tasks and its worker.

Celery stays recognisable where its users touch it: messages, priorities, `expires`, `eta`, `revoke`, task signals and
`inspect`. Requests are run by `worker.runtime.pool`, which takes them from Redis itself.
"""

import os
import socket
import sys
from functools import cached_property
from typing import Any, Final, cast

from celery import Celery, Task, bootsteps
from celery.apps.worker import Worker as CeleryWorker
from celery.worker import state

from worker import __version__, telemetry
from worker.config.exit_codes import WRONG
from worker.config.key_places import check_keys
from worker.config.otel_settings import load_otel
from worker.config.sentry_settings import load_sentry
from worker.config.settings import Settings, WrongSettingsError
from worker.operations.scaling import check_scaling_file
from worker.queue.celery_message import known_tasks
from worker.runtime import command_line, process_signals, remote_control
from worker.runtime.settings_report import report_settings
from worker.tasks import TASKS
from worker.telemetry import otel, sentry

_QUIET: Final = {"without_gossip": True, "without_mingle": True}
"""Workers tell each other nothing through Celery: what they share is in Redis."""


class LaneTask(Task):
    """A task that is enqueued with `delay`, `apply_async` or `send_task`, and run by a worker only."""

    abstract = True

    def __call__(self, *_args: Any, **_options: Any) -> Any:
        """Raises TypeError: a call in this process would have no budget, no ledger and no gateway."""
        raise TypeError(
            f"{self.name} runs in a responses-worker: enqueue it with {self.name}.delay(envelope), and read its result "
            "from the stream responses:results or with api_contracts.client.ResponsesClient"
        )


class App(Celery):
    """Celery with our settings, our Sentry client and a worker of ours."""

    def __init__(self, settings: Settings) -> None:
        """Raises WrongSettingsError for wrong SENTRY_ variables."""
        super().__init__("responses-worker", set_as_current=True)  # pyright: ignore[reportUnknownMemberType]  # celery has no types
        self.settings = settings
        self.sentry: sentry.Sentry = sentry.NoSentry(load_sentry().options)
        self.traces: otel.Traces = otel.NoTraces()

    @cached_property
    def Worker(self) -> Any:  # noqa: N802  # pyright: ignore[reportIncompatibleVariableOverride]  # Celery's own hook
        return cast("Any", self).subclass_with_self(Worker)

    def config_from_cmdline(self, argv: list[str], namespace: str = "celery") -> None:  # noqa: ARG002  # Celery's own hook
        """Raises ValueError, which Celery's command line shows: settings after `--` would change what is set here."""
        raise ValueError(f"{argv[0]}: not for this worker: set WORKER_ variables")

    def connection_for_read(self, url: str | None = None, **options: Any) -> Any:
        """The Redis of the settings: BROKER_URL and CELERY_BROKER_URL would lead remote control to another one."""
        return cast("Any", super()).connection_for_read(url or self.settings.redis.broker_url, **options)

    def connection_for_write(self, url: str | None = None, **options: Any) -> Any:
        return cast("Any", super()).connection_for_write(url or self.settings.redis.broker_url, **options)


class Worker(CeleryWorker):
    """A worker that consumes nothing through kombu, and leaves as `worker.runtime.service` says."""

    app: Any
    pool: Any

    def prepare_args(self, **options: Any) -> dict[str, Any]:
        """Heartbeats are for those who watch Celery's events; its own task events are never sent, ours are."""
        silent = not self.app.settings.celery_events
        return options | _QUIET | {"without_heartbeat": silent, "task_events": False}

    def setup_queues(self, include: Any, exclude: Any = None) -> None:
        """Selects, then deselects every queue: WORKER_LANES says what is served, and kombu serves none of it."""
        super().setup_queues(include, exclude)  # pyright: ignore[reportUnknownMemberType]  # celery has no types
        queues: Any = self.app.amqp.queues
        queues.deselect(list(queues))

    def setup_logging(self, colorize: bool | None = None) -> bool:  # noqa: ARG002, FBT001  # Celery's own hook
        """Sets up our log, then Sentry and OpenTelemetry, which log; True keeps Celery from adding handlers."""
        settings, options = self.app.settings, self.app.sentry.options
        telemetry.configure(
            settings.log_format,
            settings.log_level,
            service="responses-worker",
            version=__version__,
            environment=options.environment,
            host=socket.gethostname(),
            pid=os.getpid(),
        )
        report_settings(settings, os.environ)
        self.app.sentry = sentry.start(options)
        self.app.traces = otel.start(load_otel())
        return True

    def install_platform_tweaks(self, worker: Any) -> None:  # noqa: ARG002  # Celery passes the worker to itself
        """Instead of Celery's own handlers: its warm shutdown waits without limit, its cold one loses requests."""
        process_signals.install(drain=self.drain, leaving=lambda: state.should_stop is not None)

    def drain(self) -> None:
        """Begins to leave in good order; safe in a signal handler, any number of times."""
        state.should_stop = os.EX_OK
        if self.pool is not None:
            self.pool.drain()


class ConsumerPulse(bootsteps.StartStopStep):
    """Beats from Celery's own timer while its consumer has a connection; without a connection it may be silent."""

    requires = ("celery.worker.consumer:Control",)

    def start(self, parent: Any) -> None:
        parent.pool.consumer = parent
        beat = parent.pool.vitals.consumer.beat
        beat()  # so that a consumer that never gets going is missed as well
        parent.timer.call_repeatedly(1.0, beat)

    def stop(self, parent: Any) -> None:
        parent.pool.vitals.consumer.rest()

    shutdown = stop


def create_app(settings: Settings) -> Any:
    """The app for one process; `settings` decide where its broker is and what its pool serves.

    Raises WrongSettingsError for wrong SENTRY_ and OTEL_ variables, and for files of settings that cannot be read.
    """
    check_keys(settings)
    check_scaling_file(settings)
    otel.check(load_otel())
    app: Any = App(settings)
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
    app.steps["consumer"].add(ConsumerPulse)
    app.user_options["worker"].add(command_line.check_option())
    known_tasks.update(TASKS)
    for name, coroutine in TASKS.items():
        app.task(name=name, base=LaneTask, __header__=staticmethod(_one_envelope))(coroutine)
    remote_control.install()
    return app


def _one_envelope(envelope: Any) -> None:
    """The signature of `delay` and `apply_async`; Celery compares the caller's arguments with this signature."""


def run(settings: Settings) -> int:
    """Runs a worker in this process until it is told to leave; returns the exit code."""
    try:
        app = create_app(settings)
    except WrongSettingsError as error:
        sys.stderr.write(f"{error}\n")
        return WRONG
    worker = app.Worker(quiet=True)
    worker.start()
    return worker.exitcode or 0
