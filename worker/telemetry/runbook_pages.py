"""Pages of the runbook as Markdown, and the way from a name to its entries."""

from collections.abc import Mapping, Sequence
from typing import Final

from api_contracts import ErrorCode
from worker.failures.classes import ERRORS, FAILURES, FailureClass, Kind
from worker.failures.next_command import filled_in
from worker.telemetry.metrics import METRICS, PREFIX, Spec
from worker.telemetry.rules import RULES, Rule
from worker.telemetry.runbook import RUNBOOK, WAITS

_KINDS: Final[Mapping[str, Kind]] = {str(kind): kind for kind in FAILURES}
ALERT_PREFIX: Final = "ResponsesWorker"
_EXPLAIN_WAITING: Final = ("queue_age", "nothing_moving")
"""Entries whose first look is the reason in `waiting_seconds_total`."""


def entries_of(name: str) -> Sequence[str]:
    """The entries that a name leads to; empty for an unknown name.

    A name is an entry's own, an alert of Prometheus with or without its prefix, a reason to wait, or a metric: that
    leads to the entries of the alerts that ask for it.
    """
    if name in RUNBOOK:
        return (name,)
    reasons = {str(reason): wait.entry for reason, wait in WAITS.items()}
    if name in reasons:
        return (reasons[name],)
    if metric := metric_of(name):
        asked = [entry for rule in RULES if metric.name in rule.expr for entry in rule.entries]
        return tuple(dict.fromkeys(asked))
    return next((rule.entries for rule in RULES if rule.alert.removeprefix(ALERT_PREFIX) == _alert(name)), ())


def metric_of(name: str) -> Spec | None:
    """The metric of this name, with or without its prefix and the suffix of a series."""
    bare = name.removeprefix(PREFIX)
    series = [bare, *(bare.removesuffix(suffix) for suffix in ("_bucket", "_sum", "_count"))]
    return next((spec for spec in METRICS if spec.name.removeprefix(PREFIX) in series), None)


def _alert(name: str) -> str:
    return name.removeprefix(ALERT_PREFIX)


def alerts_of(entry: str) -> list[Rule]:
    """The alerts of Prometheus whose link leads to an entry."""
    return [rule for rule in RULES if entry in rule.entries]


def render(name: str) -> str:
    """The page of an entry as Markdown, for `docs/runbook/<name>.md`. Raises KeyError for an unknown name."""
    entry = RUNBOOK[name]
    parts = [
        f"# `{name}`",
        entry.meaning,
        f"## First look\n\n{entry.first_look}",
        *([_reasons()] if name in _EXPLAIN_WAITING else []),
        f"## Remedy\n\n{entry.remedy}",
        f"## Command\n\n```sh\n{filled_in(entry.command)}\n```",
        *_alerts(name),
        *_told(name),
    ]
    return "\n\n".join(parts) + "\n"


def _reasons() -> str:
    rows = [f"| `{reason}` | {wait.meaning} | [`{wait.entry}`]({wait.entry}.md) |" for reason, wait in WAITS.items()]
    return "\n".join(["## Reasons to wait", "", "| reason | requests wait for | see |", "|---|---|---|", *rows])


def _alerts(name: str) -> list[str]:
    alerts = [
        f"`{rule.alert}` ({rule.severity}) fires once this holds for {rule.for_}:\n\n```promql\n{rule.expr}\n```"
        for rule in alerts_of(name)
    ]
    return ["## Alerts that lead here", *alerts] if alerts else []


def _told(name: str) -> list[str]:
    if name not in _KINDS:
        return []
    kind = _KINDS[name]
    failure_class: FailureClass = FAILURES[kind]
    error = ERRORS[kind] if isinstance(kind, ErrorCode) else None
    lines = [
        f"Sentry: {_sentry(failure_class)}.",
        f"The customer sees {failure_class.customer_sees}.",
        *([f'The result says: "{error.message}" Retryable: {"yes" if error.retryable else "no"}.'] if error else []),
        f"Component: {failure_class.component}. At fault: {failure_class.fault}.",
    ]
    return ["## Who is told\n\n" + "\n".join(f"- {line}" for line in lines)]


def _sentry(failure_class: FailureClass) -> str:
    if failure_class.level is None:
        return "no event, a log line and a counter only"
    return f"an event of level {failure_class.level}" + (", which pages" if failure_class.pages else "")
