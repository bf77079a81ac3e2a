"""The composition root: settings in, a wired Service out. The only place that knows every adapter."""

import asyncio
from collections.abc import Callable
from urllib.parse import urlsplit

from worker.admission.admission_queue import AdmissionQueues
from worker.admission.places import Places
from worker.config.settings import Settings
from worker.operations.registry import Load, Registrar
from worker.operations.scaling import Scaler
from worker.queue.bell import Bell, Lanes
from worker.queue.deltas import DeltaRelay
from worker.queue.fetcher import Fetcher, Shares
from worker.queue.keeper import Keeper
from worker.queue.lease_renewer import LeaseRenewer
from worker.queue.leases import LEASE_MS
from worker.queue.ledger import Ledger
from worker.queue.maintenance import Maintenance
from worker.queue.oversize import largest_message
from worker.queue.queued_cancellation import QueuedCancellation
from worker.request.costs import Price
from worker.request.held import HeldRequests
from worker.request.policy import Policy
from worker.request.processor import Processor
from worker.request.retries import RetryPolicy
from worker.runtime.cancellations import Cancellations
from worker.runtime.executor import Executor
from worker.runtime.routing import admission_of, gateways_of, permit_renewal, route_map
from worker.runtime.service import Job, Service
from worker.runtime.task_runner import TaskRunner
from worker.storage.scripts import ScriptRunner
from worker.telemetry.incidents import Incidents
from worker.telemetry.metrics import Metrics
from worker.telemetry.observer import Observer
from worker.telemetry.otel import Traces
from worker.telemetry.sentry import Sentry

TaskRunnerOf = Callable[[Processor], TaskRunner]


def build(settings: Settings, sentry: Sentry, traces: Traces, task_runner: TaskRunnerOf) -> Service:
    """Builds the service; call it on the loop that will run it."""
    events = observer(settings, sentry, held := HeldRequests(), traces)
    runner = ScriptRunner(settings.redis.async_client(), events)
    ledger, news = _ledger(settings, runner), asyncio.Event()
    places, admission = Places(settings.concurrency), admission_of(settings, runner, events)
    queues = AdmissionQueues.of(admission, settings.lanes, places, left=news.set)
    gateways, relay = gateways_of(settings), DeltaRelay(runner.client)
    processor = Processor(ledger, queues, queues, gateways, relay, policy(settings), events, runner.pace)
    executor = Executor(
        task_runner=task_runner(processor),
        observer=events,
        maintenance=(maintenance := _maintenance(settings, ledger, runner, events)),
        places=places,
        ended=queues.leave,
        memory=settings.body_memory,
        held=held,
        quarantine=processor.quarantine,
        freed=news,
    )
    maintenance.start = executor.start
    lanes = Lanes(lanes=list(settings.lanes), news=news)
    fetcher = _fetcher(settings, ledger, executor, queues, lanes)
    keeper, sweep = _keeper(settings, fetcher, maintenance, events), _sweep(settings, executor, fetcher)
    jobs: dict[str, Job] = {"admission": queues.pump, "keeper": keeper.run, "maintenance": maintenance.run}
    jobs |= {"relay": relay.pump, "sweep": sweep.run}
    return Service(
        executor=executor,
        fetch=fetcher.run,
        jobs=jobs | _told(ledger, held, lanes) | _fleet_jobs(settings, runner, executor),
        ledger=ledger,
        keeper=keeper,
        renewer=_renewer(settings, held, fetcher, events),
        observer=events,
        gateways=gateways,
        checker=processor.checker,
        runner=runner,
        lanes=settings.lanes,
        shutdown_grace=settings.shutdown_grace,
    )


def _fetcher(settings: Settings, ledger: Ledger, executor: Executor, queues: AdmissionQueues, lanes: Lanes) -> Fetcher:
    return Fetcher(
        ledger,
        Shares(settings.lanes),
        executor.vacancies,
        queues.vacancies,
        executor.start,
        executor.observer,
        lanes,
        executor.room,
        executor.idle,
    )


def _told(ledger: Ledger, held: HeldRequests, lanes: Lanes) -> dict[str, Job]:
    """The jobs that hear from Redis which lanes hold messages and which requests are cancelled."""
    cancellations = Cancellations(held=held, ledger=ledger, told=lambda: lanes.heard)
    bell = Bell(client=ledger.runner.client, lanes=lanes, marked=cancellations.marked)
    return {"bell": bell.run, "cancellations": cancellations.run}


def _keeper(settings: Settings, fetcher: Fetcher, maintenance: Maintenance, events: Observer) -> Keeper:
    return Keeper(
        runner=fetcher.ledger.runner,
        process=fetcher.ledger.process,
        served=list(settings.lanes),
        kept=maintenance.kept,
        promote=maintenance.promote,
        events=events,
        offer=fetcher.offer,
    )


def _fleet_jobs(settings: Settings, runner: ScriptRunner, executor: Executor) -> dict[str, Job]:
    """The part that each process has in what the fleet knows of itself."""
    file, registrar = settings.scaling_file, _registrar(settings, runner, executor)
    jobs: dict[str, Job] = {"registrar": registrar.run}
    if file:
        jobs["scaling"] = Scaler(runner, settings.fleet, file, executor.observer).run
    return jobs


def _registrar(settings: Settings, runner: ScriptRunner, executor: Executor) -> Registrar:
    def load() -> Load:
        backlog = executor.maintenance.backlog
        return Load(
            holds=executor.holds(), draining=executor.draining.is_set(), backlog=backlog.stream if backlog else ""
        )

    return Registrar(
        runner=runner,
        fleet=settings.fleet,
        lanes=settings.lanes,
        concurrency=settings.concurrency,
        tally=executor.observer.tally,
        load=load,
    )


def observer(settings: Settings, sentry: Sentry, held: HeldRequests, traces: Traces) -> Observer:
    """The listener of a process that holds `held`."""
    metrics = Metrics(settings.lanes, list(settings.routing.routes))
    metrics.concurrency.set(settings.concurrency)
    budget = settings.routing.budget
    metrics.show_limits(budget.requests_per_minute, budget.tokens_per_minute, budget.max_in_flight)
    incidents = Incidents(
        metrics=metrics,
        send=sentry.send,
        render=sentry.render,
        runbook_url=sentry.options.runbook_url,
        oldest_age_s=held.oldest_age_s,
    )
    server = urlsplit(next(iter(settings.routing.routes.values())).url).hostname or ""
    return Observer(metrics=metrics, incidents=incidents, sentry=sentry, server=server, traces=traces)


def policy(settings: Settings) -> Policy:
    return Policy(
        max_body=settings.max_body,
        max_attempts=settings.max_attempts,
        timeout=settings.request_timeout,
        default_deadline=settings.default_deadline,
        result_ttl=settings.result_ttl,
        contract=settings.envelope,
        republish=settings.republish == "tenant",
        patience=settings.patience,
        retries=RetryPolicy(longest_pause_s=settings.max_pause.total_seconds()),
        routes=route_map(settings),
        prices={
            model: Price(price.input, price.cached_input, price.output)
            for model, price in settings.routing.prices.items()
        },
    )


def _ledger(settings: Settings, runner: ScriptRunner) -> Ledger:
    window = settings.duplicate_window
    return Ledger(
        runner,
        settings.fleet,
        largest=largest_message(settings.max_body),
        failed_kept_ms=round(settings.failed_body_ttl.total_seconds() * 1000),
        window_ms=round(window.total_seconds() * 1000) if window else None,
    )


def _maintenance(settings: Settings, ledger: Ledger, runner: ScriptRunner, events: Observer) -> Maintenance:
    return Maintenance(
        ledger, runner, list(settings.lanes), settings.results_retention, settings.results_high_water, events
    )


def _sweep(settings: Settings, executor: Executor, fetcher: Fetcher) -> QueuedCancellation:
    """The keeper does it for all. It waits while a pop's bytes arrive: both share one link."""
    kept = executor.maintenance.kept
    return QueuedCancellation(
        fetcher.ledger.runner,
        fetcher.ledger,
        lambda: kept.occupied,
        settings.max_body,
        lambda: executor.takes() and not fetcher.arriving,
        executor.start,
        executor.observer,
    )


def _renewer(settings: Settings, held: HeldRequests, fetcher: Fetcher, events: Observer) -> LeaseRenewer:
    client = settings.redis.client()
    return LeaseRenewer(
        client,
        held.leases,
        LEASE_MS,
        events,
        settings.fleet,
        arriving=lambda: fetcher.arriving,
        also=permit_renewal(settings, client),
    )
