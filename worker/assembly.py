"""The composition root: settings in, a wired Service out. The only place that knows every adapter."""

from collections.abc import Sequence

from worker.admission import Admission, Limits
from worker.claims import Reclaimed
from worker.housekeeping import Backlog, Housekeeping
from worker.keeper import LeaseKeeper
from worker.ledger import LEASE_MS, Ledger
from worker.policy import Policy
from worker.processor import Processor
from worker.runs import Run
from worker.scripts import ScriptRunner
from worker.service import Service
from worker.settings import Settings
from worker.telemetry import log, log_exception
from worker.upstream import Upstream
from worker.waiting import WaitingRooms


def build(settings: Settings) -> Service:
    """Builds the service; call it on the loop that will run it."""
    runs: dict[str, Run] = {}
    runner = ScriptRunner(settings.redis.async_client(), on_trouble=_redis_trouble)
    ledger = Ledger(runner)
    admission = Admission(
        runner=runner,
        limits=limits(settings),
        lease_ms=LEASE_MS,
        longest_pause_ms=round(settings.max_pause.total_seconds() * 1000),
        probe_ms=round(settings.probe_interval.total_seconds() * 1000),
    )
    rooms = WaitingRooms.of(admission, settings.lanes)
    upstream = Upstream("default", settings.upstream_url, settings.api_key)
    return Service(
        runner=runner,
        ledger=ledger,
        admission=admission,
        rooms=rooms,
        upstream=upstream,
        processor=Processor(ledger, rooms, admission, upstream, policy(settings), _bug),
        keeper=LeaseKeeper(
            settings.redis.client(),
            held=lambda: [(run.delivery.lane, token) for token, run in list(runs.items())],
            lease_ms=LEASE_MS,
            on_lost=lambda lost: log("lease.lost", "warning", deliveries=len(lost)),
        ),
        housekeeping=Housekeeping(
            ledger,
            runner,
            list(settings.lanes),
            settings.results_retention,
            settings.results_high_water,
            on_reclaimed=_reclaimed,
            on_backlog=_backlog,
            on_trouble=lambda error: log("ledger.refused", "error", error=str(error)),
        ),
        weights=settings.lanes,
        concurrency=settings.concurrency,
        shutdown_grace=settings.shutdown_grace,
        runs=runs,
    )


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


def _redis_trouble(error: str | None) -> None:
    if error is None:
        log("redis.recovered")
    else:
        log("redis.lost", "error", error=error)


def _bug(error: Exception) -> None:
    log_exception("request.crashed", error)


def _reclaimed(reclaimed: Sequence[Reclaimed]) -> None:
    log(
        "lease.reclaimed",
        "warning",
        deliveries=len(reclaimed),
        calling=sum(1 for one in reclaimed if one.attempt),
    )


def _backlog(backlog: Backlog | None) -> None:
    if backlog is None:
        log("results.drained")
    else:
        log(
            "results.high_water",
            "error",
            stream=backlog.stream,
            unread=backlog.unread,
            laggard=backlog.laggard,
        )
