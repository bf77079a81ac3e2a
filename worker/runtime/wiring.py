"""The composition root: settings in, a wired Service out. The only place that knows every adapter."""

from collections.abc import Callable
from urllib.parse import urlsplit

from worker.admission.admission_queue import AdmissionQueues
from worker.admission.client import Admission
from worker.admission.events import AdmissionEvents
from worker.admission.grants import Limits
from worker.config.settings import Settings
from worker.gateway.upstream import Upstream
from worker.operations.scaling import Scaler
from worker.queue.deltas import DeltaRelay
from worker.queue.fetcher import Fetcher, Shares
from worker.queue.lease_renewer import LeaseRenewer
from worker.queue.leases import LEASE_MS
from worker.queue.ledger import Ledger
from worker.queue.maintenance import Maintenance
from worker.queue.oversize import largest_message
from worker.queue.queued_cancellation import QueuedCancellation
from worker.request.held import HeldRequests
from worker.request.policy import Policy
from worker.request.processor import Processor
from worker.request.quarantine import Quarantine
from worker.request.retries import RetryPolicy
from worker.runtime.executor import Executor
from worker.runtime.service import Job, Service
from worker.runtime.task_runner import TaskRunner
from worker.storage.scripts import ScriptRunner
from worker.telemetry.incidents import Incidents
from worker.telemetry.metrics import Metrics
from worker.telemetry.observer import Observer
from worker.telemetry.sentry import Sentry


def build(settings: Settings, sentry: Sentry, task_runner: Callable[[Processor], TaskRunner]) -> Service:
    """Builds the service; call it on the loop that will run it."""
    held = HeldRequests()
    events = observer(settings, sentry, held)
    runner = ScriptRunner(settings.redis.async_client(), events)
    ledger = Ledger(runner, settings.fleet, largest=largest_message(settings.max_body))
    admission = _admission(settings, runner, events)
    queues = AdmissionQueues.of(admission, settings.lanes)
    upstream = _upstream(settings)
    relay = DeltaRelay(runner.client)
    maintenance = _maintenance(settings, ledger, runner, events)
    quarantine = Quarantine()
    processor = Processor(ledger, queues, admission, upstream, relay, policy(settings), events, quarantine=quarantine)
    executor = Executor(
        task_runner=task_runner(processor),
        observer=events,
        maintenance=maintenance,
        concurrency=settings.concurrency,
        memory=settings.body_memory,
        held=held,
        quarantine=quarantine,
    )
    maintenance.start = executor.start
    fetcher = _fetcher(settings, ledger, executor, queues, events)
    cancellation = _cancellation(settings, ledger, executor, fetcher, events)
    return Service(
        executor=executor,
        fetch=fetcher.run,
        jobs=_jobs(queues, cancellation, maintenance, relay) | _scaling(settings, runner, events),
        ledger=ledger,
        renewer=_renewer(settings, held, fetcher, events),
        observer=events,
        upstream=upstream,
        runner=runner,
        lanes=settings.lanes,
        shutdown_grace=settings.shutdown_grace,
    )


def _fetcher(
    settings: Settings, ledger: Ledger, executor: Executor, queues: AdmissionQueues, events: Observer
) -> Fetcher:
    return Fetcher(
        ledger,
        Shares(settings.lanes),
        executor.places,
        queues.vacancies,
        executor.start,
        events,
        executor.freed,
        executor.room,
    )


def _jobs(
    queues: AdmissionQueues, cancellation: QueuedCancellation, maintenance: Maintenance, relay: DeltaRelay
) -> dict[str, Job]:
    return {
        "admission": queues.pump,
        "cancellation": cancellation.run,
        "maintenance": maintenance.run,
        "relay": relay.pump,
    }


def _scaling(settings: Settings, runner: ScriptRunner, events: Observer) -> dict[str, Job]:
    file = settings.scaling_file
    return {"scaling": Scaler(runner, settings.fleet, file, events).run} if file else {}


def observer(settings: Settings, sentry: Sentry, held: HeldRequests) -> Observer:
    """The listener of a process that holds `held`."""
    metrics = Metrics(settings.lanes)
    metrics.concurrency.set(settings.concurrency)
    metrics.show_limits(settings.requests_per_minute, settings.tokens_per_minute, settings.max_in_flight)
    incidents = Incidents(
        metrics=metrics,
        send=sentry.send,
        render=sentry.render,
        runbook_url=sentry.options.runbook_url,
        oldest_age_s=held.oldest_age_s,
    )
    server = urlsplit(settings.upstream_url).hostname or ""
    return Observer(metrics=metrics, incidents=incidents, sentry=sentry, server=server)


def policy(settings: Settings) -> Policy:
    return Policy(
        max_body=settings.max_body,
        max_attempts=settings.max_attempts,
        timeout=settings.request_timeout,
        default_deadline=settings.default_deadline,
        result_ttl=settings.result_ttl,
        republish=settings.republish == "tenant",
        patience=settings.patience,
        retries=RetryPolicy(longest_pause_s=settings.max_pause.total_seconds()),
    )


def _upstream(settings: Settings) -> Upstream:
    return Upstream(
        "default",
        settings.upstream_url,
        settings.api_key,
        silence_s=settings.idle_timeout.total_seconds() or None,
        max_answer_bytes=settings.max_answer,
    )


def _maintenance(settings: Settings, ledger: Ledger, runner: ScriptRunner, events: Observer) -> Maintenance:
    return Maintenance(
        ledger, runner, list(settings.lanes), settings.results_retention, settings.results_high_water, events
    )


def _cancellation(
    settings: Settings, ledger: Ledger, executor: Executor, fetcher: Fetcher, events: Observer
) -> QueuedCancellation:
    """It waits while a pop's bytes arrive: both share one link."""
    return QueuedCancellation(
        ledger.runner,
        ledger,
        settings.lanes,
        settings.max_body,
        lambda: executor.takes() and not fetcher.arriving,
        executor.start,
        events,
    )


def _renewer(settings: Settings, held: HeldRequests, fetcher: Fetcher, events: Observer) -> LeaseRenewer:
    return LeaseRenewer(
        settings.redis.client(), held.leases, LEASE_MS, events, settings.fleet, arriving=lambda: fetcher.arriving
    )


def _admission(settings: Settings, runner: ScriptRunner, events: AdmissionEvents) -> Admission:
    return Admission(
        runner=runner,
        limits=Limits(
            settings.requests_per_minute, settings.tokens_per_minute, settings.max_in_flight, settings.burst_seconds
        ),
        lease_ms=LEASE_MS,
        longest_pause_ms=round(settings.max_pause.total_seconds() * 1000),
        probe_ms=round(settings.probe_interval.total_seconds() * 1000),
        upstream=settings.fleet,
        events=events,
    )
