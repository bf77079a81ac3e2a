"""The alert rules of Prometheus, as data.

Pages come from the error budget, from queue age and from a fleet in which nothing moves. Sentry explains, and pages
only where an operator must act and no number moves first: a dead key, an empty wallet, unpublishable results.
Burn rates follow the SRE Workbook, "Alerting on SLOs": 14.4 times over 1 h uses 2 % of a 30-day budget.

`python -m worker.telemetry.rules` prints the Prometheus rules as JSON, which is YAML.
"""

import json
import sys
from dataclasses import dataclass
from typing import Any, Final, Literal

from worker.failures.next_command import look_up
from worker.telemetry.metrics import UPSTREAM_STATES
from worker.telemetry.runbook_links import link

OBJECTIVE: Final = 0.99
"""The share of answers that must not fail within 30 days. Failures by the caller's fault do not count."""

STATUS: Final = "responses-worker status"
"""The first command where the fleet itself can tell the cause."""

STATE: Final = "{{ $labels.state }}"
"""The label `state` of an alert, as Prometheus' templates write it."""
SHUT: Final = tuple(state for state in UPSTREAM_STATES if state not in ("open", "paused"))
"""The states in which only probes are called."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A Prometheus alert. `entry` names its runbook entry, or is STATE: then each state has the entry of its name."""

    alert: str
    expr: str
    for_: str
    severity: Literal["page", "ticket"]
    entry: str
    summary: str
    is_told_by_status: bool = True
    """Whether `status` names the cause; where it cannot, the runbook is the first to ask."""

    @property
    def command(self) -> str:
        """The first command to type; each prints the next one."""
        return STATUS if self.is_told_by_status else look_up(self.alert)

    @property
    def entries(self) -> tuple[str, ...]:
        """Every runbook entry that the alert's link may lead to."""
        return SHUT if self.entry == STATE else (self.entry,)

    def rendered(self, runbook_url: str = "") -> dict[str, Any]:
        """The rule in Prometheus' own form."""
        return {
            "alert": self.alert,
            "expr": self.expr,
            "for": self.for_,
            "labels": {"severity": self.severity},
            "annotations": {
                "summary": self.summary,
                "description": f"Type `{self.command}`: it says more, and what to type next.",
                "command": self.command,
                "runbook_url": link(self.entry, runbook_url),
            },
        }


def _failed(window: str) -> str:
    """The share of answers that failed while the caller was not at fault."""
    ours = f'sum(rate(responses_worker_results_total{{outcome="failed",fault!~"caller|none"}}[{window}]))'
    counted = f'sum(rate(responses_worker_results_total{{fault!="caller"}}[{window}]))'
    return f"{ours} / {counted}"


def _burn(times: float, long: str, short: str) -> str:
    limit = f"{times} * {round(1 - OBJECTIVE, 6)}"
    return f"({_failed(long)}) > {limit} and ({_failed(short)}) > {limit}"


def _waits_too_long(window: str) -> str:
    """Lanes whose 95th percentile of waiting is above their target. A short window tells that it still is."""
    waits = f"sum by (le, lane) (rate(responses_worker_queue_wait_seconds_bucket[{window}]))"
    return f"histogram_quantile(0.95, {waits}) > on (lane) max by (lane) (responses_worker_lane_target_seconds)"


_WAITING: Final = 'max by (lane) (responses_worker_lane_messages{state="ready"}) > 0'
_LANE_MOVES: Final = "sum by (lane) (increase(responses_worker_deliveries_total[10m])) > 0"
_PAUSED: Final = "max(responses_worker_fleet_paused) == 1"

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
        expr=f"({_waits_too_long('10m')}) and on (lane) ({_waits_too_long('2m')})",
        for_="10m",
        severity="page",
        entry="queue_age",
        summary="Requests wait longer in lane {{ $labels.lane }} than its target allows",
    ),
    Rule(
        alert="ResponsesWorkerNothingMoving",
        expr=f"({_WAITING}) unless on (lane) ({_LANE_MOVES}) unless on () ({_PAUSED})",
        for_="5m",
        severity="page",
        entry="nothing_moving",
        summary="Lane {{ $labels.lane }} has messages and nothing of it has finished for 10 minutes",
    ),
    Rule(
        alert="ResponsesWorkerLaneUnserved",
        expr=f"({_WAITING}) and on (lane) (max by (lane) (responses_worker_lane_workers) == 0)",
        for_="10m",
        severity="ticket",
        entry="lane_unserved",
        summary="No worker serves lane {{ $labels.lane }}, and messages wait in it",
    ),
    Rule(
        alert="ResponsesWorkerSilent",
        expr="absent(responses_worker_info)",
        for_="10m",
        severity="page",
        entry="workers_silent",
        summary="No worker shows metrics",
        is_told_by_status=False,
    ),
    Rule(
        alert="ResponsesWorkerUpstreamShut",
        expr='max by (upstream, state) (responses_worker_upstream_state{state!~"open|paused"}) == 1',
        for_="5m",
        severity="ticket",
        entry=STATE,
        summary=f"The gateway is shut: {STATE}",
    ),
    Rule(
        alert="ResponsesWorkerPaused",
        expr=_PAUSED,
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
        is_told_by_status=False,
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
        is_told_by_status=False,
    ),
)

RECORDED: Final = {
    "responses_worker:useful_workers": (
        "ceil(max(responses_worker_useful_concurrency) / max(responses_worker_concurrency_limit))"
    ),
}
"""Recording rules: how many workers the learned rate can keep busy."""


def prometheus_groups(runbook_url: str = "") -> dict[str, Any]:
    """The content of a Prometheus rule file, or of a PrometheusRule's `spec`."""
    recorded = [{"record": record, "expr": expr} for record, expr in RECORDED.items()]
    rules = [*recorded, *(rule.rendered(runbook_url) for rule in RULES)]
    return {"groups": [{"name": "responses-worker", "rules": rules}]}


if __name__ == "__main__":
    json.dump(prometheus_groups(*sys.argv[1:2]), sys.stdout, indent=2)
