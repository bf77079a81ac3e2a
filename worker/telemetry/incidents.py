"""Turns failures and conditions into Sentry events and log lines, few per incident.

Nothing here waits for Sentry: its client hands events to a thread of its own and drops those above its queue's size.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

from worker.failures.classes import FAILURES, Kind, SentryLevel, State
from worker.telemetry.event_throttle import EventThrottle, Fingerprint, Impact
from worker.telemetry.logs import log
from worker.telemetry.metrics import Metrics
from worker.telemetry.redaction import chain, name
from worker.telemetry.reports import SERVICE, Facts, Incident, event_of, fingerprint, recovery_of
from worker.telemetry.runbook_links import link

REDIS_PATIENCE_S: Final = 60.0
"""An outage of Redis is an incident after this time: a failover takes seconds and needs no operator."""

_LOG_LEVELS: Final[Mapping[SentryLevel, Literal["error", "warning", "info"]]] = {
    "fatal": "error",
    "error": "error",
    "warning": "warning",
    "info": "info",
}


@dataclass(slots=True)
class _Condition:
    incident: Incident
    began_s: float


@dataclass(slots=True, kw_only=True)
class Incidents:
    """One per process. `send` takes a Sentry event and returns its id; `render` makes an exception's entries."""

    metrics: Metrics
    send: Callable[[dict[str, Any]], str | None] = lambda _: None
    render: Callable[[BaseException], Sequence[Mapping[str, Any]]] = lambda _: ()
    runbook_url: str = ""
    oldest_age_s: Callable[[], float | None] = lambda: None
    clock: Callable[[], float] = time.monotonic
    redis_patience_s: float = REDIS_PATIENCE_S
    _throttle: EventThrottle[Incident] = field(default_factory=EventThrottle[Incident])
    _conditions: dict[tuple[Kind, str], _Condition] = field(default_factory=dict[tuple[Kind, str], _Condition])
    """By kind and upstream."""
    _rendered: dict[Fingerprint, Sequence[Mapping[str, Any]]] = field(
        default_factory=dict[Fingerprint, "Sequence[Mapping[str, Any]]"]
    )
    """Exceptions by fingerprint: rendering is expensive, so each defect is rendered once."""
    _redis_lost_s: float | None = None
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def failed(self, kind: Kind, facts: Facts) -> None:
        """Counts one failed request, and reports it if an event is due."""
        if FAILURES[kind].level is None:
            return
        incident = Incident(kind=kind, facts=facts, fingerprint=fingerprint(kind, facts))
        self._note(incident)

    def crashed(self, error: BaseException, facts: Facts, kind: State = State.BUG) -> None:
        """Reports a defect of ours. Its fingerprint is the exception's type and place."""
        mark = _mark(error) if kind is State.BUG else fingerprint(kind, facts)
        if mark not in self._rendered:
            self._rendered[mark] = self.render(error)
        self._note(Incident(kind=kind, facts=facts, fingerprint=mark, exception=self._rendered[mark]))

    def began(self, kind: Kind, facts: Facts) -> None:
        """Reports the begin of a condition, once until it ends."""
        incident = Incident(kind=kind, facts=facts, fingerprint=fingerprint(kind, facts))
        with self._lock:
            if (kind, facts.upstream) in self._conditions:
                return
            self._conditions[kind, facts.upstream] = _Condition(incident, self.clock())
        impact = self._throttle.begin(incident.fingerprint, incident, self.clock())
        if impact is not None:
            self._tell(incident, impact)

    def ended(self, kind: Kind, upstream: str = "") -> None:
        """Reports the end of a condition, of this upstream or of any; does nothing if it did not hold."""
        with self._lock:
            held = [key for key in self._conditions if key[0] == kind and upstream in ("", key[1])]
            condition = self._conditions.pop(held[0]) if held else None
        if condition is None:
            return
        lasted_s = self.clock() - condition.began_s
        event_id = None
        if FAILURES[kind].end_is_told:
            event_id = self.send(recovery_of(condition.incident, lasted_s, runbook_url=self.runbook_url))
        log("incident.ended", kind=kind, lasted_s=round(lasted_s, 1), event_id=event_id)

    def redis_lost(self) -> None:
        """Notes that Redis does not serve; an incident if that lasts."""
        self._redis_lost_s = self._redis_lost_s or self.clock()

    def redis_recovered(self) -> None:
        self._redis_lost_s = None
        self.ended(State.REDIS_LOST)

    def tick(self) -> None:
        """Reports everything that is due; call it about once a second."""
        now_s = self.clock()
        if self._redis_lost_s is not None and now_s - self._redis_lost_s >= self.redis_patience_s:
            lost_s = now_s - self._redis_lost_s
            self.began(State.REDIS_LOST, Facts(upstream="redis", detail=f"Redis has not served for {lost_s:.0f} s"))
        for incident, impact in self._throttle.due(now_s):
            self._tell(incident, impact)

    def flush(self) -> None:
        """Reports everything that was held back; call it once, at the end."""
        for incident, impact in self._throttle.flush(self.clock()):
            self._tell(incident, impact)

    def _note(self, incident: Incident) -> None:
        facts = incident.facts
        impact = self._throttle.note(incident.fingerprint, incident, self.clock(), tenant=facts.tenant, lane=facts.lane)
        self._count(incident.kind, impact)
        if impact is not None:
            self._tell(incident, impact)

    def _count(self, kind: Kind, impact: Impact | None) -> None:
        self.metrics.incidents.labels(kind, "reported" if impact else "held").inc()

    def _tell(self, incident: Incident, impact: Impact) -> None:
        since = datetime.now(UTC) - timedelta(seconds=self.clock() - impact.since_s)
        event = event_of(incident, impact, since=since, oldest_age_s=self.oldest_age_s(), runbook_url=self.runbook_url)
        log(
            "incident.reported",
            _LOG_LEVELS[event["level"]],
            kind=incident.kind,
            failures=impact.failures,
            total=impact.total,
            tenants=len(impact.tenants),
            lanes=impact.lanes,
            since=since.isoformat(timespec="seconds"),
            pages=FAILURES[incident.kind].pages,
            runbook=link(incident.kind, self.runbook_url),
            trace_id=incident.facts.trace_id or None,
            detail=incident.facts.detail or None,
            event_id=self.send(event),
        )


def _mark(error: BaseException) -> Fingerprint:
    """The fingerprint of a defect for the throttle; Sentry groups by the whole stack."""
    innermost = list(chain(error))[-1]
    trace = innermost.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    at = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else ""
    return (SERVICE, State.BUG, name(innermost), at)
