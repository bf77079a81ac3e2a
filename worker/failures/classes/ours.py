"""Failures of the worker, its Redis, its budget and its operators."""

from collections.abc import Mapping
from typing import Final

from api_contracts.errors import ErrorCode
from worker.failures.classes.model import (
    SEES_NOTHING,
    SEES_RETRYABLE,
    ErrorClass,
    FailureClass,
    Route,
    RunbookEntry,
    State,
)

_ROLL_BACK: Final = "helm rollback responses-worker"

ERRORS: Final[Mapping[ErrorCode, ErrorClass]] = {
    ErrorCode.RATE_LIMITED: ErrorClass(
        route=Route.THROTTLE,
        retryable=True,
        message="The upstream is limiting our rate.",
        trace_status="resource_exhausted",
        level="warning",
        component="budget",
        fault="budget",
        customer_sees=SEES_RETRYABLE,
        runbook=RunbookEntry(
            "Deadlines passed while requests waited for the rate budget: demand is above what the gateway allows.",
            "`fleet_rate_per_minute` against demand; lanes and tenants of the event. Does one tenant flood a lane?",
            "Raise the limit at the gateway and WORKER_REQUESTS_PER_MINUTE, or give the flood a lane of its own with a "
            "small weight. More workers do not help.",
            "responses-worker limits",
        ),
    ),
    ErrorCode.DEADLINE_EXCEEDED: ErrorClass(
        route=Route.ANSWER,
        retryable=False,
        message="The deadline left no time for an answer.",
        trace_status="deadline_exceeded",
        level="warning",
        component="budget",
        fault="budget",
        customer_sees="a failed result, too late to be of use",
        runbook=RunbookEntry(
            "Requests ran out of time: they were queued too long, or their last attempts failed close to the deadline.",
            "`queue_ms` and `upstream` of the event: did they wait, or fail? `queue_wait_seconds` by lane.",
            "Waited: see queue_age. Failed: see the upstream's error in the result. Or the deadlines are too short.",
            "responses-worker results --code deadline_exceeded --json",
        ),
    ),
    ErrorCode.INTERNAL_ERROR: ErrorClass(
        route=Route.ANSWER,
        retryable=True,
        message="The worker failed; this is a defect of ours.",
        trace_status="internal_error",
        level="error",
        component="worker",
        fault="worker",
        customer_sees=SEES_RETRYABLE,
        runbook=RunbookEntry(
            "A defect of ours ended the request, and the caller was told so. The entries bug and poison say more.",
            "Issues of class `bug` and `poison` of the same time.",
            "That of bug or poison. `redrive` runs anew what failed.",
            "responses-worker redrive --code internal_error --dry-run",
        ),
    ),
}

STATES: Final[Mapping[State, FailureClass]] = {
    State.REDIS_LOST: FailureClass(
        level="error",
        component="redis",
        fault="operator",
        customer_sees="nothing: no answer is published and none is lost",
        runbook=RunbookEntry(
            "Redis has not served this process for 60 s. Requests and answers wait; data that Redis kept is not lost.",
            "Redis itself: `doctor` says whether it is up, full, evicting, or read-only after a failover.",
            "Bring Redis back. Workers go on by themselves; /readyz says 503 until then, /livez stays 200.",
            "responses-worker doctor",
        ),
    ),
    State.RESULTS_UNPUBLISHABLE: FailureClass(
        level="fatal",
        component="results",
        fault="worker",
        customer_sees="nothing: an answer that was paid for cannot be published",
        pages=True,
        runbook=RunbookEntry(
            "An answer exists and cannot be written to its stream: callers see nothing, and calls were paid for.",
            "`error` of the `ledger.refused` line: is the result stream's key of another type, or Redis read-only?",
            "Repair the key (rename the one that is in the way). The request is made again when its lease runs out: "
            "pause first if many are affected, so that nothing is paid for twice.",
            "responses-worker pause --reason 'results cannot be published'",
        ),
    ),
    State.RESULTS_HIGH_WATER: FailureClass(
        level="fatal",
        component="results",
        fault="operator",
        customer_sees=SEES_NOTHING,
        pages=True,
        runbook=RunbookEntry(
            "A consumer group has over WORKER_RESULTS_HIGH_WATER unread entries in a result stream. Workers take no "
            "more work.",
            "The stream and group in the event's `detail`. Is that consumer down, or does it not acknowledge?",
            "Start the consumer. Drop a group that is not needed any more; its backlog is then trimmed.",
            "responses-worker results --drop-group GROUP",
        ),
    ),
    State.LEDGER_REFUSED: FailureClass(
        level="error",
        component="redis",
        fault="worker",
        customer_sees="nothing yet: the request is tried again",
        runbook=RunbookEntry(
            "A Redis script failed for a lasting reason: a key of another type, missing rights, or a defect of ours.",
            "`error` in the `ledger.refused` line. Was `responses:*` written by hand, or the ACL changed?",
            "Repair the key or the ACL. The request keeps its lease and is tried again when that runs out.",
            "responses-worker doctor",
        ),
    ),
    State.POISON: FailureClass(
        level="error",
        component="request",
        fault="worker",
        customer_sees="a failed result; the message is kept as a dead letter",
        runbook=RunbookEntry(
            "Three workers died with one request, the last with it alone. It was answered and is a dead letter.",
            "Restarts and memory of the workers: out of memory? `dead show` tells the size of the message.",
            "Raise the memory limit or refuse such requests; replay the dead letter when a worker survives it.",
            "responses-worker dead list",
        ),
    ),
    State.BUG: FailureClass(
        level="error",
        component="worker",
        fault="worker",
        customer_sees=SEES_RETRYABLE,
        runbook=RunbookEntry(
            "The code raised an exception that it does not expect. Only its request failed.",
            "The stack in the event, and `release`: new since a deploy? The exception's text is withheld, because it "
            "may quote a prompt.",
            "Roll back if it came with a release; otherwise fix it. Above 5 % of requests treat it as an outage.",
            _ROLL_BACK,
        ),
    ),
    State.LOOP_STALLED: FailureClass(
        level="error",
        component="worker",
        fault="worker",
        customer_sees=SEES_NOTHING,
        runbook=RunbookEntry(
            "The event loop of one worker shows no heartbeat for 12 s: no request moves there, and its liveness probe "
            "fails.",
            "`stack` of the `loop.stalled` line says where it stands. Is the pod's CPU throttled?",
            "Kubernetes restarts it; its requests run again once their leases end. Fix the blocking code, or raise the "
            "limit.",
            "kubectl top pod -l app.kubernetes.io/name=responses-worker",
        ),
    ),
    State.CONSUMER_STALLED: FailureClass(
        level="error",
        component="worker",
        fault="worker",
        customer_sees="nothing: requests go on, remote control is deaf",
        runbook=RunbookEntry(
            "Celery's consumer of one worker stands still: no remote control, no revoke. Requests go on until the "
            "restart.",
            "`stack` of the `consumer.stalled` line.",
            "Kubernetes restarts it.",
            "kubectl get pods -l app.kubernetes.io/name=responses-worker",
        ),
    ),
    State.WORKER_FAILED: FailureClass(
        level="fatal",
        component="worker",
        fault="worker",
        customer_sees=SEES_NOTHING,
        pages=True,
        runbook=RunbookEntry(
            "The request loop of a process died of an exception. The process leaves and is started again.",
            "The stack in the event, and `release`.",
            "Roll back if it came with a release. If it restarts again and again, look at the settings and at Redis.",
            _ROLL_BACK,
        ),
    ),
}
