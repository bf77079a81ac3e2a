"""The runbook: one entry for each failure class and each alert, read by events, alert rules, the CLI and the docs.

An entry tells an engineer on call the meaning, the first look, the remedy and a command. Entries of failure classes
stand in the class's row (`worker.failures.classes`); entries of alerts stand here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from worker.failures.classes import FAILURES, RunbookEntry
from worker.failures.classes.model import RESUME
from worker.telemetry.metrics import WaitReason

ALERTS: Final[Mapping[str, RunbookEntry]] = {
    "error_budget_burn": RunbookEntry(
        "Answers fail faster than the objective allows, and their callers are not at fault.",
        '`sum by (code) (rate(responses_worker_results_total{outcome="failed"}[5m]))`: which code? Read its entry.',
        "That of the code. If only one lane or tenant is hit, a lane of its own contains it.",
    ),
    "queue_age": RunbookEntry(
        "Requests of a lane wait longer than its target in WORKER_QUEUE_TARGET, within which 95 of 100 should start.",
        "`waiting_seconds_total` by `reason`: the table names the page of each.",
        "Budget: raise it, or take fewer requests. `share`: raise the lane's weight in WORKER_LANES. `process_full`: "
        "start workers, up to `useful_concurrency` divided by WORKER_CONCURRENCY.",
        "responses-worker limits",
    ),
    "nothing_moving": RunbookEntry(
        "Messages wait in a lane of which no delivery has finished for 10 minutes; other lanes may move.",
        "`status` says in its first line why. `waiting_seconds_total` by `reason`: the table names the page of each. "
        "No worker at all? `up`, KEDA, pods "
        "pending.",
        "The page of the reason names it. `draining`: workers are leaving and none starts, so look at the rollout. "
        "`other`: the worker is older than the reason, and `status` shows it.",
        "responses-worker doctor",
    ),
    "workers_silent": RunbookEntry(
        "Messages wait and no worker shows metrics.",
        "Pods: pending, crash-looping? A wrong setting stops the start with one line per mistake.",
        "Repair the deployment; messages wait in Redis.",
        "kubectl describe pod -l app.kubernetes.io/name=responses-worker",
    ),
    "lane_unserved": RunbookEntry(
        "Messages wait in a lane that no worker serves; other lanes move.",
        "`status`: is the lane's name a typo of a producer, or did the deployment that serves it go to zero pods?",
        "Start workers with the lane in WORKER_LANES, or scale its group up; its messages wait in Redis until then. "
        "A typo: mend the producer, and let a worker serve the lane until it is empty. Until then a worker "
        "can be started anywhere.",
        "WORKER_LANES=LANE=1 responses-worker run",
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
        "responses-worker limits",
    ),
    "paused": RunbookEntry(
        "An operator paused the fleet; requests wait until their deadlines.",
        "`status` shows the pause. Ask the operators for its reason before you resume.",
        "End the pause when the reason is gone.",
        RESUME,
    ),
}
"""Entries of alert rules, by name."""


@dataclass(frozen=True, slots=True)
class Wait:
    """One reason to wait, and the entry that explains it."""

    meaning: str
    entry: str


WAITS: Final[Mapping[WaitReason, Wait]] = {
    "requests": Wait("the budget of requests a minute, configured or learned", "rate_limited"),
    "tokens": Wait("the budget of tokens a minute", "rate_limited"),
    "concurrency": Wait("a place among the calls in flight of the fleet", "rate_limited"),
    "share": Wait("the turn of their lane, while other lanes use theirs", "queue_age"),
    "throttled": Wait("the end of the pause that a 429 asked for", "throttled"),
    "authentication_failed": Wait("a key that works", "authentication_failed"),
    "quota_exhausted": Wait("an account with money", "quota_exhausted"),
    "breaker_open": Wait("a gateway that works", "breaker_open"),
    "paused": Wait("`resume`, because an operator paused the fleet", "paused"),
    "redis_lost": Wait("Redis", "redis_lost"),
    "results_high_water": Wait("consumers to read their results", "results_high_water"),
    "draining": Wait("another worker, because this one leaves", "nothing_moving"),
    "process_full": Wait("one of the WORKER_CONCURRENCY places of their process", "queue_age"),
    "other": Wait("a reason that this release does not know", "nothing_moving"),
}
"""Every reason of `waiting_seconds_total`."""

RUNBOOK: Final[Mapping[str, RunbookEntry]] = {
    **{str(kind): failure_class.runbook for kind, failure_class in FAILURES.items()},
    **ALERTS,
}
"""Entries by name: every failure class, and every alert."""
