"""The runbook: one entry for each failure class and each alert, read by events, alert rules, the CLI and the docs.

An entry tells an engineer on call the meaning, the first look, the remedy and a command. Entries of failure classes
stand in the class's row (`worker.failures.classes`); entries of alerts stand here.
"""

from collections.abc import Mapping
from typing import Final

from api_contracts import ErrorCode
from worker.failures.classes import ERRORS, FAILURES, FailureClass, Kind, RunbookEntry

PAGES: Final = "docs/runbook"
"""The folder of the pages in the repository."""


def link(name: str, base_url: str) -> str:
    """The address of an entry's page: `<base_url>/<name>/`, or the page's file without a base."""
    return f"{base_url.rstrip('/')}/{name}/" if base_url else f"{PAGES}/{name}.md"


ALERTS: Final[Mapping[str, RunbookEntry]] = {
    "error_budget_burn": RunbookEntry(
        "Answers fail faster than the objective allows, and their callers are not at fault.",
        '`sum by (code) (rate(responses_worker_results_total{outcome="failed"}[5m]))`: which code? Read its entry.',
        "That of the code. If only one lane or tenant is hit, a lane of its own contains it.",
    ),
    "queue_age": RunbookEntry(
        "Requests wait longer in their lane than the target.",
        "`waiting_seconds_total` by reason. `requests`, `tokens`: the budget is used up. `process_full`: few workers.",
        "Budget: raise it, or take fewer requests. process_full: start workers, up to `useful_concurrency` divided by "
        "WORKER_CONCURRENCY.",
        "responses-worker status --watch",
    ),
    "nothing_moving": RunbookEntry(
        "Messages wait and no delivery has finished for 10 minutes.",
        "`waiting_seconds_total` by reason says why. No worker at all? `up`, KEDA, pods pending.",
        "That of the reason: the states of this runbook have the same names. Paused by an operator: `resume`.",
        "responses-worker status",
    ),
    "workers_silent": RunbookEntry(
        "Messages wait and no worker shows metrics.",
        "Pods: pending, crash-looping? A wrong setting stops the start with one line per mistake.",
        "Repair the deployment; messages wait in Redis.",
        "kubectl describe pod -l app.kubernetes.io/name=responses-worker",
    ),
    "dead_letters": RunbookEntry(
        "Messages were put aside because they cannot be read, or because workers died of them.",
        "`reason` of the dead letters.",
        "See message_unreadable and poison.",
        "responses-worker dead list",
    ),
    "calls_lost": RunbookEntry(
        "Workers die in the middle of calls, which may be paid for twice.",
        "Restarts, out-of-memory kills, evictions of the pods.",
        "Raise limits; let terminationGracePeriodSeconds exceed WORKER_SHUTDOWN_GRACE.",
        "kubectl get events --field-selector reason=OOMKilling",
    ),
    "throttled": RunbookEntry(
        "The gateway answers 429; the fleet pauses and slows down. Requests wait and nothing fails yet.",
        '`upstream_calls_total{status="429"}` against the rest; does another system use the same key?',
        "None as long as queue_age is quiet. Otherwise raise the limit at the gateway.",
    ),
    "paused": RunbookEntry(
        "An operator paused the fleet; requests wait until their deadlines.",
        "`status` shows the pause. Ask the operators for its reason before you resume.",
        "`resume` when the reason is gone.",
        "responses-worker resume",
    ),
}
"""Entries of alert rules, by name."""

_KINDS: Final[Mapping[str, Kind]] = {str(kind): kind for kind in FAILURES}

RUNBOOK: Final[Mapping[str, RunbookEntry]] = {name: FAILURES[kind].runbook for name, kind in _KINDS.items()} | ALERTS
"""Entries by name: every failure class, and every alert."""


def render(name: str) -> str:
    """The page of an entry as Markdown, for `docs/runbook/<name>.md`. Raises KeyError for an unknown name."""
    entry = RUNBOOK[name]
    told = _told(_KINDS[name]) if name in _KINDS else ["An alert rule of Prometheus leads here."]
    parts = [
        f"# `{name}`",
        entry.meaning,
        f"## First look\n\n{entry.first_look}",
        f"## Remedy\n\n{entry.remedy}",
        f"## Command\n\n```sh\n{entry.command}\n```",
        "## Who is told\n\n" + "\n".join(f"- {line}" for line in told),
    ]
    return "\n\n".join(parts) + "\n"


def _told(kind: Kind) -> list[str]:
    failure_class: FailureClass = FAILURES[kind]
    error = ERRORS[kind] if isinstance(kind, ErrorCode) else None
    return [
        f"Sentry: {_sentry(failure_class)}.",
        f"The customer sees {failure_class.customer_sees}.",
        *([f'The result says: "{error.message}" Retryable: {"yes" if error.retryable else "no"}.'] if error else []),
        f"Component: {failure_class.component}. At fault: {failure_class.fault}.",
    ]


def _sentry(failure_class: FailureClass) -> str:
    if failure_class.level is None:
        return "no event, a log line and a counter only"
    return f"an event of level {failure_class.level}" + (", which pages" if failure_class.pages else "")
