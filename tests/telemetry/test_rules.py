"""Alert rules name metrics and labels that exist, and lead to entries that exist."""

import json
import re
import subprocess
import sys

import pytest
from docgen.sentry_rules import SENTRY_RULES

from worker.failures.classes import FAILURES
from worker.telemetry.metrics import METRICS, UPSTREAM_STATES, WAIT_REASONS, Metrics
from worker.telemetry.process_observer import Load, why_waiting
from worker.telemetry.rules import RECORDED, RULES, STATE, Rule, prometheus_groups
from worker.telemetry.runbook import ALERTS, RUNBOOK, WAITS
from worker.telemetry.runbook_pages import alerts_of, entries_of, render

_SERIES = {"counter": ("",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
SERIES = {spec.name + suffix: spec for spec in METRICS for suffix in _SERIES[spec.kind]}
EXPRESSIONS = [*(rule.expr for rule in RULES), *RECORDED.values()]


@pytest.mark.parametrize("expr", EXPRESSIONS)
def test_a_rule_asks_for_what_there_is(expr: str) -> None:
    """A misspelt metric is an alert that never fires."""
    for name, selector in re.findall(r"\b(responses_worker_\w+)(?:\{([^}]*)\})?", expr):
        assert name in SERIES
        asked = set(re.findall(r"(\w+)[!=]~?\"", selector))
        assert asked <= {*SERIES[name].labels, "le"}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.alert)
def test_a_rule_leads_to_its_entry(rule: Rule) -> None:
    """The link of an alert leads to a page with the remedy, and the page names the alert."""
    for entry in rule.entries:
        assert entry in RUNBOOK
        assert f"`{rule.alert}` ({rule.severity})" in render(entry)
        assert rule.expr in render(entry)
    assert list(entries_of(rule.alert)) == list(rule.entries)
    rendered = rule.rendered("https://run.example/book")
    assert rendered["annotations"]["runbook_url"] == f"https://run.example/book/{rule.entry}/"
    assert rendered["labels"]["severity"] in ("page", "ticket")


def test_an_alert_of_a_state_leads_to_the_page_of_that_state() -> None:
    """Prometheus fills in the label; every state that the expression lets through has a page."""
    (rule,) = (rule for rule in RULES if rule.entry == STATE)
    (excluded,) = re.findall(r'state!~"([^"]+)"', rule.expr)

    assert set(rule.entries) == set(UPSTREAM_STATES) - set(excluded.split("|"))
    assert rule.rendered()["annotations"]["runbook_url"] == "docs/runbook/{{ $labels.state }}.md"


def test_a_page_without_an_alert_claims_none() -> None:
    for name in RUNBOOK:
        assert ("Alerts that lead here" in render(name)) == bool(alerts_of(name))


def test_an_entry_of_rules_is_reached() -> None:
    """Each has a rule, save `throttled`, which is looked up from a wait reason."""
    assert {entry for rule in RULES for entry in rule.entries} >= ALERTS.keys() - {"throttled"}


def test_the_rules_are_printed_as_json() -> None:
    """The rules are YAML, and the chart and `responses-worker runbook --rules` show the same."""
    ran = subprocess.run([sys.executable, "-m", "worker.telemetry.rules"], capture_output=True, text=True, check=True)

    assert json.loads(ran.stdout) == prometheus_groups()


def test_sentry_pages_where_the_table_says_so() -> None:
    """By a tag that every event carries."""
    assert any("`page` is `true`" in rule.matching and rule.then == "page" for rule in SENTRY_RULES)
    assert [kind for kind, failure in FAILURES.items() if failure.pages]


def test_every_reason_to_wait_leads_to_a_page() -> None:
    """On the pages of both alerts whose first look is `waiting_seconds_total`."""
    assert WAITS.keys() == set(WAIT_REASONS)
    for reason, wait in WAITS.items():
        assert wait.entry in RUNBOOK
        assert reason not in RUNBOOK or wait.entry == reason
        for page in ("queue_age", "nothing_moving"):
            assert f"| `{reason}` | {wait.meaning} | [`{wait.entry}`]({wait.entry}.md) |" in render(page)


def test_labels_are_closed_sets() -> None:
    """No tenant, no request, no text: what is unbounded costs a Prometheus its memory."""
    labels = {label for spec in METRICS for label in spec.labels}

    assert labels <= {
        "action", "budget", "calling", "code", "disposition", "fault", "group", "kind", "lane", "model", "outcome",
        "phase", "python", "reason", "state", "status", "status_class", "stream", "type", "upstream", "version",
    }  # fmt: skip


def test_an_update_costs_microseconds() -> None:
    """All updates of one request stay far below a tenth of a millisecond, so that nobody leaves them out."""
    import time  # noqa: PLC0415  # measured here only

    metrics = Metrics(["interactive"])
    started = time.perf_counter()
    for _ in range(1000):
        metrics.deliveries.labels("interactive", "completed").inc()
        metrics.duration.labels("interactive", "completed").observe(1.5)

    assert (time.perf_counter() - started) / 1000 < 100e-6


IDLE = Load(held=0, calling=0, concurrency=10, draining=False, backlogged=False)
WAITING = Load(held=5, calling=2, concurrency=10, draining=False, backlogged=False)
FULL = Load(held=10, calling=10, concurrency=10, draining=False, backlogged=False)
DRAINING = Load(held=5, calling=2, concurrency=10, draining=True, backlogged=False)
BACKLOGGED = Load(held=0, calling=0, concurrency=10, draining=False, backlogged=True)


@pytest.mark.parametrize(
    ("load", "redis_up", "said", "started", "reason"),
    [
        (IDLE, True, "", 0, None),
        (WAITING, True, "requests", 3, None),
        (WAITING, True, "requests", 0, "requests"),
        (WAITING, True, "breaker_open", 0, "breaker_open"),
        (WAITING, True, "a word of a newer script", 0, "other"),
        (FULL, True, "", 0, "process_full"),
        (IDLE, False, "", 0, "redis_lost"),
        (BACKLOGGED, True, "", 0, "results_high_water"),
        (DRAINING, False, "requests", 0, "draining"),
    ],
)
def test_why_nothing_moves(load: Load, redis_up: bool, said: str, started: int, reason: str | None) -> None:  # noqa: FBT001  # columns of the table
    """One reason at a time, the one nearest to the process first; none where something moves or nothing is to do."""
    assert why_waiting(load, redis_up=redis_up, said=said, started=started) == reason
