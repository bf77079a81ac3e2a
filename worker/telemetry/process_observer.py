"""Reports the conditions of a process: Redis, the gateway's gate, leases, unread results, and the reason to wait.

Called from the loop, from request tasks and from threads. Each condition is reported when it begins and when it is
over, and is a metric all the while.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from api_contracts import ErrorCode
from worker.admission.grants import Ask, Gate, Grant, Limits
from worker.failures.classes import Kind, State
from worker.failures.foreign_words import label
from worker.queue.claims import Backlog, Reclaimed
from worker.storage.scripts import ScriptError
from worker.telemetry import Event, log
from worker.telemetry.event_fields import facts_of
from worker.telemetry.incidents import Incidents
from worker.telemetry.metrics import WAIT_REASONS, Metrics, WaitReason
from worker.telemetry.reports import Facts
from worker.telemetry.request_observer import current

_GATES: Final[dict[str, Kind]] = {
    "authentication_failed": ErrorCode.AUTHENTICATION_FAILED,
    "quota_exhausted": ErrorCode.QUOTA_EXHAUSTED,
    "breaker_open": State.BREAKER_OPEN,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """The load of a process at one moment."""

    held: int
    calling: int
    concurrency: int
    draining: bool
    backlogged: bool

    @property
    def waiting(self) -> int:
        return self.held - self.calling


@dataclass(kw_only=True)
class ProcessObserver:
    """Implements `RedisEvents`, `QueueEvents` and `AdmissionEvents`."""

    metrics: Metrics
    incidents: Incidents
    redis_up: bool = True
    _lost_at: float = 0.0
    _gates: dict[str, str] = field(default_factory=dict[str, str])
    """The state of each route, empty while it is open."""
    _paused: bool = False
    _wait: str = ""
    _started: int = 0
    per_minute: float = 0.0
    """Requests that the whole fleet may start a minute, as of the last grant."""
    _limits: Limits | None = None
    _ticked: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self._gates = dict.fromkeys(self.metrics.upstreams, "")

    def redis_lost(self, error: str) -> None:
        self.redis_up, self._lost_at = False, time.monotonic()
        log("redis.lost", "error", error=error)
        self.incidents.redis_lost()
        self.metrics.redis_up.set(0)

    def redis_recovered(self) -> None:
        self.redis_up = True
        log("redis.recovered", lost_s=round(time.monotonic() - self._lost_at, 1))
        self.incidents.redis_recovered()
        self.metrics.redis_up.set(1)

    def gate_changed(self, gate: Gate, code: str, *, upstream: str = "default") -> None:
        if gate:
            log("upstream.shut", "warning", gate=gate, code=code, upstream=upstream)
        else:
            log("upstream.opened", gate=self._gates.get(upstream, ""), upstream=upstream)
        for name, kind in _GATES.items():
            if name != gate:
                self.incidents.ended(kind, upstream)
        self._show(gate or "open", upstream)

    def gate_confirmed(self, gate: Gate, code: str, *, upstream: str = "default") -> None:
        execution = current()
        facts = replace(facts_of(execution) if execution else Facts(), upstream=upstream)
        log("upstream.shut", "error", gate=gate, code=code, confirmed=True, upstream=upstream)
        self.incidents.began(_GATES[gate], facts)

    def calls_granted(self, asked: Sequence[Ask], grant: Grant) -> None:
        self._started += grant.granted
        self.metrics.budget_used.labels("requests").inc(grant.granted)
        started = (ask for ask, answer in zip(asked, grant.answers, strict=True) if answer.word == "go")
        self.metrics.budget_used.labels("tokens").inc(sum(ask.tokens for ask in started))
        self.per_minute = grant.per_second * 60
        self.metrics.rate.set(self.per_minute)
        if grant.limits != self._limits:
            self._limits = grant.limits
            self.metrics.show_limits(
                grant.limits.requests_per_minute, grant.limits.tokens_per_minute, grant.limits.max_in_flight
            )
        if grant.waits and grant.reason:
            self._wait = grant.reason
            self.metrics.deferrals.labels(known_reason(grant.reason)).inc()
        paused = grant.reason == "paused"
        if paused != self._paused:
            self._paused = paused
            for upstream in self._gates:
                self._show("paused" if paused else "open", upstream)

    def deliveries_reclaimed(self, reclaimed: Sequence[Reclaimed]) -> None:
        calling = sum(1 for one in reclaimed if one.attempt)
        self.metrics.reclaimed.labels("true").inc(calling)
        self.metrics.reclaimed.labels("false").inc(len(reclaimed) - calling)
        log("lease.reclaimed", "warning", deliveries=len(reclaimed), calling=calling)

    def leases_lost(self, tokens: set[str]) -> None:
        self.metrics.leases_lost.inc(len(tokens))
        log("lease.lost", "warning", deliveries=len(tokens))

    def backlog_changed(self, backlog: Backlog | None) -> None:
        if backlog is None:
            log("results.drained")
            self.incidents.ended(State.RESULTS_HIGH_WATER)
            return
        laggard = label(backlog.laggard)
        log("results.high_water", "error", stream=backlog.stream, unread=backlog.unread, laggard=laggard)
        detail = f"{backlog.unread} entries in {backlog.stream}, group {laggard or 'none'}"
        self.incidents.began(State.RESULTS_HIGH_WATER, Facts(upstream="results", detail=detail))

    def script_refused(self, error: ScriptError) -> None:
        log("ledger.refused", "error", error=str(error))
        self.incidents.failed(State.LEDGER_REFUSED, Facts(upstream="redis"))

    def stalled(self, state: State, event: Event, silence_s: float, stack: Sequence[str]) -> None:
        """The loop or Celery's consumer shows no heartbeat; `stack` is its thread's frames, innermost last."""
        log(event, "error", silence_s=round(silence_s, 1), stack=stack)
        at = stack[-1] if stack else "an unknown place"
        self.incidents.began(state, Facts(upstream="worker", detail=f"no heartbeat for {silence_s:.0f} s, at {at}"))

    def tick(self, load: Load, late_s: float) -> None:
        """Updates time-dependent metrics; call it once a second. `late_s` is the delay of the event loop."""
        now = time.monotonic()
        self.metrics.loop_lag.observe(max(0.0, late_s))
        self.metrics.held.labels("calling").set(load.calling)
        self.metrics.held.labels("waiting").set(load.waiting)
        reason = why_waiting(load, redis_up=self.redis_up, said=self._shut or self._wait, started=self._started)
        if reason is not None:
            self.metrics.waiting.labels(reason).inc(now - self._ticked)
        self._ticked, self._started = now, 0
        self.incidents.tick()

    @property
    def _shut(self) -> str:
        """The state of the first route, if no route is open."""
        return next(iter(self._gates.values())) if all(self._gates.values()) else ""

    def _show(self, state: str, upstream: str) -> None:
        self._gates[upstream] = "" if state == "open" else state
        self.metrics.show_upstream(upstream, state)


def why_waiting(load: Load, *, redis_up: bool, said: str, started: int) -> WaitReason | None:
    """The reason why a process started none of its requests for a second; None if it started one or had none."""
    if started:
        return None
    if load.draining:
        return "draining"
    if not redis_up:
        return "redis_lost"
    if load.backlogged:
        return "results_high_water"
    if load.waiting:
        return known_reason(said)
    return "process_full" if load.held >= load.concurrency else None


def known_reason(said: str) -> WaitReason:
    """The script's reason, if it is one of the closed list of labels."""
    return said if said in WAIT_REASONS else "other"  # pyright: ignore[reportReturnType]  # just looked up
