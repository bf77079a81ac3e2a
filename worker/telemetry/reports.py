"""An incident as a Sentry event: failure class, begin, affected tenants, remedy. Pure functions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from worker.failures.classes import FAILURES, Kind, State
from worker.failures.next_command import filled_in
from worker.telemetry.event_throttle import Fingerprint, Impact
from worker.telemetry.runbook_links import link

SERVICE: Final = "responses-worker"
_TENANTS_NAMED: Final = 10
_FEW: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """One request, or one condition, that an event is about: ids, codes and durations, never content."""

    upstream: str = "default"
    lane: str = ""
    tenant: str = ""
    request_id: str = ""
    task_id: str = ""
    trace_id: str = ""
    span_id: str = ""
    model: str = ""
    http_status: int | None = None
    retryable: bool | None = None
    attempts: int = 0
    upstream_code: str | None = None
    upstream_request_id: str | None = None
    retry_after_s: float | None = None
    enqueued_at: str = ""
    queue_ms: int | None = None
    throttle_ms: int | None = None
    upstream_ms: int | None = None
    detail: str = ""
    """For a condition: its facts, in words and numbers of ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """The subject of an event; its impact comes from the throttle."""

    kind: Kind
    facts: Facts
    fingerprint: Fingerprint
    exception: Sequence[Mapping[str, Any]] = field(default=(), repr=False)
    """For a bug: Sentry's exception values, their texts withheld."""


def event_of(
    incident: Incident, impact: Impact, *, since: datetime, oldest_age_s: float | None, runbook_url: str
) -> dict[str, Any]:
    """The event; `since` is the begin of the series, `oldest_age_s` the age of the oldest request held here."""
    kind, facts = incident.kind, incident.facts
    failure_class = FAILURES[kind]
    entry = failure_class.runbook
    return {
        "level": failure_class.level,
        "logger": SERVICE,
        "transaction": "responses.create",
        "exception": {"values": [*incident.exception] or [_stated(kind, entry.meaning)]},
        "fingerprint": ["{{ default }}"] if kind is State.BUG else list(incident.fingerprint),
        "tags": _tags(kind, facts),
        "user": {"id": facts.tenant} if facts.tenant else {},
        "contexts": _present(
            impact=_impact(impact, since, oldest_age_s)
            | {"customer_sees": failure_class.customer_sees, "detail": facts.detail},
            runbook={
                "url": link(kind, runbook_url),
                "meaning": entry.meaning,
                "first_look": entry.first_look,
                "remedy": entry.remedy,
                "command": filled_in(entry.command, lane=facts.lane),
            },
            upstream=_upstream(facts),
            request=_request(facts),
            trace={"trace_id": facts.trace_id, "span_id": facts.span_id} if facts.trace_id else {},
        ),
    }


def recovery_of(incident: Incident, lasted_s: float, *, runbook_url: str) -> dict[str, Any]:
    """The end of a condition, as an issue of its own: on the first issue it would look like a regression."""
    kind = incident.kind
    return {
        "level": "info",
        "logger": SERVICE,
        "transaction": "responses.create",
        "exception": {"values": [_stated(kind, f"over after {lasted_s:.0f} s", suffix=".ended")]},
        "fingerprint": [*incident.fingerprint, "ended"],
        "tags": _tags(kind, incident.facts) | {"page": "false", "recovered": "true"},
        "contexts": {
            "impact": {"lasted_s": round(lasted_s, 1)},
            "runbook": {"url": link(kind, runbook_url), "meaning": FAILURES[kind].runbook.meaning},
        },
    }


def fingerprint(kind: Kind, facts: Facts) -> Fingerprint:
    """One issue per failure class and upstream; never text, status, request or tenant."""
    return (SERVICE, kind, facts.upstream)


def _stated(kind: str, text: str, *, suffix: str = "") -> dict[str, Any]:
    """An exception entry without a stack: its type and value are what issue lists show."""
    return {"type": f"{kind}{suffix}", "value": text, "mechanism": {"type": SERVICE, "handled": True}}


def _tags(kind: Kind, facts: Facts) -> dict[str, str]:
    failure_class = FAILURES[kind]
    tags = {
        "failure_class": kind,
        "component": failure_class.component,
        "fault": failure_class.fault,
        "page": str(failure_class.pages).lower(),
        "upstream": facts.upstream,
        "lane": facts.lane,
        "model": facts.model,
        "http_status": str(facts.http_status or ""),
        "upstream_code": facts.upstream_code or "",
        "retryable": "" if facts.retryable is None else str(facts.retryable).lower(),
        "attempts": _bucket(facts.attempts) if facts.request_id else "",
    }
    return {name: value for name, value in tags.items() if value}


def _impact(impact: Impact, since: datetime, oldest_age_s: float | None) -> dict[str, Any]:
    return {
        "failures_since_last_event": impact.failures,
        "failures_since_it_began": impact.total,
        "since": since.astimezone(UTC).isoformat(timespec="seconds"),
        "window_s": round(impact.window_s, 1),
        "tenants_affected": len(impact.tenants),
        "tenants": list(impact.tenants[:_TENANTS_NAMED]),
        "lanes": list(impact.lanes),
        "oldest_request_age_s": None if oldest_age_s is None else round(oldest_age_s, 1),
    }


def _upstream(facts: Facts) -> dict[str, Any]:
    return {
        "name": facts.upstream,
        "request_id": facts.upstream_request_id,
        "http_status": facts.http_status,
        "code": facts.upstream_code,
        "retry_after_s": facts.retry_after_s,
    }


def _request(facts: Facts) -> dict[str, Any]:
    if not facts.request_id:
        return {}
    return {
        "id": facts.request_id,
        "task_id": facts.task_id,
        "tenant": facts.tenant,
        "lane": facts.lane,
        "attempts": facts.attempts,
        "enqueued_at": facts.enqueued_at,
        "queue_ms": facts.queue_ms,
        "throttle_ms": facts.throttle_ms,
        "upstream_ms": facts.upstream_ms,
    }


def _present(**contexts: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The contexts without empty values."""
    return {
        name: kept
        for name, context in contexts.items()
        if (kept := {key: value for key, value in context.items() if value not in (None, "", [])})
    }


def _bucket(attempts: int) -> str:
    if attempts <= 1:
        return str(attempts)
    return f"2-{_FEW}" if attempts <= _FEW else f">{_FEW}"
