"""What should wake somebody, and what should only be read in the morning: rules for Prometheus and for Sentry, as data.

Pages come from the error budget, from queue age and from nothing moving; Sentry explains. It pages itself only where
a human must act and no number moves first: a dead key, an empty wallet, answers that cannot be published.
Burn rates after the SRE Workbook, "Alerting on SLOs": 14.4 times over 1 h eats 2 % of a 30-day budget.

`python -m worker.telemetry.rules` prints the Prometheus rules as JSON, which is YAML.
"""

import json
import sys
from dataclasses import dataclass
from typing import Any, Final, Literal

from worker.telemetry.runbook import link

OBJECTIVE: Final = 0.99
"""Of the answers whose fault would be ours or the gateway's, how many must not fail, over 30 days."""
QUEUE_TARGET_S: Final = 60
"""The 95th percentile of waiting in an interactive lane."""

Severity = Literal["page", "ticket"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A Prometheus alert; `entry` is its runbook entry."""

    alert: str
    expr: str
    for_: str
    severity: Severity
    entry: str
    summary: str

    def rendered(self, runbook_url: str = "") -> dict[str, Any]:
        """As Prometheus reads it."""
        return {
            "alert": self.alert,
            "expr": self.expr,
            "for": self.for_,
            "labels": {"severity": self.severity},
            "annotations": {"summary": self.summary, "runbook_url": link(self.entry, runbook_url)},
        }


def _failed(window: str) -> str:
    """The share of answers that failed through no fault of the caller's."""
    ours = f'sum(rate(responses_worker_results_total{{outcome="failed",fault!~"caller|none"}}[{window}]))'
    counted = f'sum(rate(responses_worker_results_total{{fault!="caller"}}[{window}]))'
    return f"{ours} / {counted}"


def _burn(times: float, long: str, short: str) -> str:
    limit = f"{times} * {round(1 - OBJECTIVE, 6)}"
    return f"({_failed(long)}) > {limit} and ({_failed(short)}) > {limit}"


_WAITING: Final = 'sum(max by (lane) (responses_worker_lane_messages{state="ready"}))'

RULES: Final = (
    Rule(
        alert="ResponsesWorkerErrorBudgetBurnsFast",
        expr=_burn(14.4, "1h", "5m"),
        for_="2m",
        severity="page",
        entry="error_budget_burn",
        summary="Answers fail 14 times faster than the objective bears",
    ),
    Rule(
        alert="ResponsesWorkerErrorBudgetBurns",
        expr=_burn(6, "6h", "30m"),
        for_="15m",
        severity="page",
        entry="error_budget_burn",
        summary="Answers fail 6 times faster than the objective bears",
    ),
    Rule(
        alert="ResponsesWorkerErrorBudgetBurnsSlowly",
        expr=_burn(1, "3d", "6h"),
        for_="1h",
        severity="ticket",
        entry="error_budget_burn",
        summary="The error budget will not last the month",
    ),
    Rule(
        alert="ResponsesWorkerQueueAge",
        expr=(
            "histogram_quantile(0.95, sum by (le, lane) (rate(responses_worker_queue_wait_seconds_bucket"
            f'{{lane="interactive"}}[10m]))) > {QUEUE_TARGET_S}'
        ),
        for_="10m",
        severity="page",
        entry="queue_age",
        summary="Requests wait over a minute in lane {{ $labels.lane }}",
    ),
    Rule(
        alert="ResponsesWorkerNothingMoving",
        expr=f"{_WAITING} > 0 and sum(increase(responses_worker_deliveries_total[10m])) == 0",
        for_="5m",
        severity="page",
        entry="nothing_moving",
        summary="Messages wait and nothing has finished for 10 minutes; waiting_seconds_total says why",
    ),
    Rule(
        alert="ResponsesWorkerSilent",
        expr="absent(responses_worker_info)",
        for_="10m",
        severity="page",
        entry="workers_silent",
        summary="No worker shows metrics",
    ),
    Rule(
        alert="ResponsesWorkerUpstreamShut",
        expr='max by (upstream, state) (responses_worker_upstream_state{state!~"ok|paused"}) == 1',
        for_="5m",
        severity="ticket",
        entry="nothing_moving",
        summary="The gateway is out of order: {{ $labels.state }}",
    ),
    Rule(
        alert="ResponsesWorkerPaused",
        expr='max by (upstream) (responses_worker_upstream_state{state="paused"}) == 1',
        for_="30m",
        severity="ticket",
        entry="paused",
        summary="An operator's pause lasts for half an hour",
    ),
    Rule(
        alert="ResponsesWorkerRedisLost",
        expr="min(responses_worker_redis_up) == 0",
        for_="2m",
        severity="page",
        entry="redis_lost",
        summary="Redis does not serve a worker",
    ),
    Rule(
        alert="ResponsesWorkerResultsUnread",
        expr="max by (stream, group) (responses_worker_results_unread) > 100000",
        for_="30m",
        severity="ticket",
        entry="results_high_water",
        summary="Group {{ $labels.group }} lags behind on {{ $labels.stream }}",
    ),
    Rule(
        alert="ResponsesWorkerDeadLetters",
        expr="sum(increase(responses_worker_dead_letters_total[1h])) > 0",
        for_="0m",
        severity="ticket",
        entry="dead_letters",
        summary="Messages became dead letters",
    ),
    Rule(
        alert="ResponsesWorkerCallsLost",
        expr='sum(increase(responses_worker_reclaimed_total{calling="true"}[1h])) > 5',
        for_="0m",
        severity="ticket",
        entry="calls_lost",
        summary="Workers die in the middle of calls",
    ),
)

RECORDED: Final = {
    "responses_worker:useful_workers": (
        "ceil(max(responses_worker_useful_concurrency) / max(responses_worker_concurrency_limit))"
    ),
}
"""Recording rules: how many workers the learned rate can keep busy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SentryRule:
    """A recommended alert rule of Sentry; none fires per event, the gate's tail events would repeat it."""

    name: str
    when: str
    matching: str
    then: str
    at_most: str


SENTRY_RULES: Final = (
    SentryRule(
        name="Somebody must act",
        when="a new issue, or a resolved one regressed",
        matching="`page` is `true`",
        then="page",
        at_most="30 min per issue",
    ),
    SentryRule(
        name="Something is wrong",
        when="a new issue, or a resolved one regressed",
        matching="`level` is `error` or above, `page` is not `true`",
        then="chat",
        at_most="30 min per issue",
    ),
    SentryRule(
        name="Many customers",
        when="an issue affects more than 10 users in 1 h (users are tenants)",
        matching="`fault` is not `caller`",
        then="page",
        at_most="1 h per issue",
    ),
)


def prometheus_groups(runbook_url: str = "") -> dict[str, Any]:
    """The content of a Prometheus rule file, or of a PrometheusRule's `spec`."""
    recorded = [{"record": record, "expr": expr} for record, expr in RECORDED.items()]
    rules = [*recorded, *(rule.rendered(runbook_url) for rule in RULES)]
    return {"groups": [{"name": "responses-worker", "rules": rules}]}


if __name__ == "__main__":
    json.dump(prometheus_groups(*sys.argv[1:2]), sys.stdout, indent=2)
