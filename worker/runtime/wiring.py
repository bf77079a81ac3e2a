"""The composition root: settings in, a wired Service out. The only place that knows every adapter."""

from collections.abc import Mapping
from urllib.parse import urlsplit

from worker.admission.admission_queue import AdmissionQueues
from worker.admission.client import Admission, Limits
from worker.config.settings import Settings
from worker.gateway.upstream import Upstream
from worker.queue.deltas import DeltaRelay
from worker.queue.lease_renewer import LeaseRenewer
from worker.queue.ledger import LEASE_MS, Ledger
from worker.queue.maintenance import Maintenance
from worker.request.execution import Execution
from worker.request.policy import Policy
from worker.request.processor import Processor
from worker.request.retries import RetryPolicy
from worker.runtime.service import Service
from worker.storage.scripts import ScriptRunner
from worker.telemetry.incidents import Incidents
from worker.telemetry.metrics import Metrics
from worker.telemetry.observed_upstream import ObservedUpstream
from worker.telemetry.process_observer import ProcessObserver
from worker.telemetry.request_observer import RequestObserver
from worker.telemetry.sentry import Sentry


def build(settings: Settings, sentry: Sentry) -> Service:
    """Builds the service; call it on the loop that will run it."""
    runs: dict[str, Execution] = {}
    watch = watching(settings, sentry, runs)
    runner = ScriptRunner(settings.redis.async_client(), on_trouble=watch.redis)
    ledger = Ledger(runner)
    admission = _admission(settings, runner, watch)
    rooms = AdmissionQueues.of(admission, settings.lanes)
    upstream = _upstream(settings, watch.observer)
    relay = DeltaRelay(runner.client)
    service = Service(
        runner=runner,
        ledger=ledger,
        admission=admission,
        rooms=rooms,
        upstream=upstream,
        relay=relay,
        processor=Processor(
            ledger,
            rooms,
            admission,
            upstream,
            relay,
            policy(settings),
            watch.observer.bug,
            RetryPolicy(longest_pause_s=settings.max_pause.total_seconds()),
        ),
        keeper=LeaseRenewer(
            settings.redis.client(),
            held=lambda: [(run.delivery.lane, token) for token, run in list(runs.items())],
            lease_ms=LEASE_MS,
            on_lost=watch.lost,
        ),
        housekeeping=_housekeeping(settings, ledger, watch),
        observer=watch.observer,
        watch=watch,
        weights=settings.lanes,
        concurrency=settings.concurrency,
        shutdown_grace=settings.shutdown_grace,
        runs=runs,
    )
    watch.load = service.load
    return service


def watching(settings: Settings, sentry: Sentry, runs: Mapping[str, Execution]) -> ProcessObserver:
    """All that notices and tells, for the runs a process holds."""
    metrics = Metrics(settings.lanes)
    metrics.concurrency.set(settings.concurrency)
    metrics.show_limits(settings.requests_per_minute, settings.tokens_per_minute, settings.max_in_flight)
    incidents = Incidents(
        metrics=metrics,
        send=sentry.send,
        render=sentry.render,
        runbook_url=sentry.options.runbook_url,
        oldest_age_s=lambda: _oldest_age_s(runs),
    )
    server = urlsplit(settings.upstream_url).hostname or ""
    observer = RequestObserver(metrics=metrics, incidents=incidents, sentry=sentry, server=server)
    return ProcessObserver(metrics=metrics, incidents=incidents, observer=observer)


def _admission(settings: Settings, runner: ScriptRunner, watch: ProcessObserver) -> Admission:
    return Admission(
        runner=runner,
        limits=limits(settings),
        lease_ms=LEASE_MS,
        longest_pause_ms=round(settings.max_pause.total_seconds() * 1000),
        probe_ms=round(settings.probe_interval.total_seconds() * 1000),
        on_gate=watch.gate,
        on_grant=watch.granted,
        on_confirmed=watch.confirmed,
    )


def _housekeeping(settings: Settings, ledger: Ledger, watch: ProcessObserver) -> Maintenance:
    return Maintenance(
        ledger,
        ledger.runner,
        list(settings.lanes),
        settings.results_retention,
        settings.results_high_water,
        on_reclaimed=watch.reclaimed,
        on_backlog=watch.backlog,
        on_trouble=watch.trouble,
    )


def _oldest_age_s(runs: Mapping[str, Execution]) -> float | None:
    ages_ms = [run.now_ms - run.lease.enqueued_at_ms for run in list(runs.values()) if run.claimed]
    return max(ages_ms) / 1000 if ages_ms else None


def _upstream(settings: Settings, observer: RequestObserver) -> Upstream:
    upstream = ObservedUpstream(
        "default",
        settings.upstream_url,
        settings.api_key,
        silence_s=settings.idle_timeout.total_seconds() or None,
        max_answer_bytes=settings.max_answer,
    )
    upstream.observer = observer
    return upstream


def limits(settings: Settings) -> Limits:
    return Limits(
        settings.requests_per_minute,
        settings.tokens_per_minute,
        settings.max_in_flight,
        settings.burst_seconds,
    )


def policy(settings: Settings) -> Policy:
    return Policy(
        max_body=settings.max_body,
        max_attempts=settings.max_attempts,
        timeout=settings.request_timeout,
        default_deadline=settings.default_deadline,
        result_ttl=settings.result_ttl,
        probe_interval=settings.probe_interval,
        patience=settings.patience,
    )
