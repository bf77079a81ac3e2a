"""The README's part for whoever is on call, generated from the data that the worker itself acts by."""

from collections.abc import Callable
from typing import Any, Final

from pydantic import SecretStr

from support.sentry_rules import SENTRY_RULES
from worker.config.environment import variable
from worker.config.sentry_settings import SentrySettings
from worker.failures.classes import FAILURES
from worker.telemetry.metrics import METRICS
from worker.telemetry.rules import RULES
from worker.telemetry.runbook import RUNBOOK


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def sentry() -> str:
    rows = [
        (f"`{variable(SentrySettings, name)}`", _default(field.default), " ".join((field.description or "").split()))
        for name, field in SentrySettings.model_fields.items()
    ]
    return table(("variable", "default", "meaning"), rows)


def metrics() -> str:
    rows = [
        (f"`{spec.name}`", spec.kind, ", ".join(f"`{label}`" for label in spec.labels), spec.help) for spec in METRICS
    ]
    return table(("metric", "kind", "labels", "meaning"), rows)


def treatments() -> str:
    """What Sentry is told of; what only callers can mend is a line and a counter, and stands in one row."""
    told = [
        (f"[`{kind}`](#runbook-{kind})", failure.level, "yes" if failure.pages else "", failure.customer_sees)
        for kind, failure in FAILURES.items()
        if failure.level
    ]
    silent = ", ".join(f"`{kind}`" for kind, failure in FAILURES.items() if not failure.level)
    return table(("class or state", "level", "pages", "meanwhile the customer sees"), [*told, (silent, "none", "", "")])


def runbook() -> str:
    return "\n\n".join(
        f'<a id="runbook-{name}"></a>**`{name}`** {entry.meaning}<br>\n'
        f"*First look:* {entry.first_look}<br>\n*Remedy:* {entry.remedy}<br>\n`{entry.command}`"
        for name, entry in RUNBOOK.items()
    )


def rules() -> str:
    rows = [(f"`{rule.alert}`", rule.severity, rule.for_, f"[{rule.entry}](#runbook-{rule.entry})") for rule in RULES]
    return table(("Prometheus alert", "severity", "for", "runbook"), rows)


def sentry_rules() -> str:
    rows = [(rule.name, rule.when, rule.matching, rule.then, rule.at_most) for rule in SENTRY_RULES]
    return table(("Sentry alert rule", "when", "if", "then", "at most once in"), rows)


def _default(value: Any) -> str:
    if value in (None, ""):
        return ""
    return "" if isinstance(value, SecretStr) else f"`{value}`"


TABLES: Final[dict[str, Callable[[], str]]] = {
    "sentry": sentry,
    "metrics": metrics,
    "treatments": treatments,
    "rules": rules,
    "sentry_rules": sentry_rules,
    "runbook": runbook,
}
