"""What to do, one entry per failure class, state and alert: read by events, alert rules, the CLI and README.

An entry answers what somebody who was just woken asks: what does this mean, where do I look first, what ends it, and
which command do I type. Placeholders in capitals are in the event.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from api_contracts import ErrorCode
from worker.failures.alert_policy import State

_STATUS: Final = "responses-worker status"


@dataclass(frozen=True, slots=True)
class Entry:
    meaning: str
    first_look: str
    remedy: str
    command: str = _STATUS


def link(name: str, base_url: str) -> str:
    """Where the entry is to be read: an anchor of README, under the address given by WORKER_RUNBOOK_URL."""
    return f"{base_url or 'README.md'}#runbook-{name}"


_CALLERS: Final[Mapping[str, Entry]] = {
    ErrorCode.INVALID_REQUEST: Entry(
        "A caller's request breaks the contract, or the gateway says so; nobody here is to blame.",
        "`violations` in the result, `tenant` in the log line. One tenant, since a deploy of theirs? Then it is that.",
        "Tell the tenant. If every tenant has it, the gateway or our contract changed: compare with its documentation.",
        "responses-worker results --json | jq 'select(.error.code==\"invalid_request\") | .error'",
    ),
    ErrorCode.DUPLICATE_CONFLICT: Entry(
        "A request id came twice with different bodies, or again after its result had gone.",
        "`tenant` and `request_id` in the log line: does the caller derive ids from something that is not unique?",
        "The caller chooses ids that are unique per body. The first request is untouched.",
        "redis-cli HGETALL responses:request:TENANT:REQUEST_ID",
    ),
    ErrorCode.CONTEXT_LENGTH_EXCEEDED: Entry(
        "The input does not fit the model.",
        "`input_bytes` in the log line.",
        "The caller shortens its input; nothing to do here.",
    ),
    ErrorCode.REQUEST_TOO_LARGE: Entry(
        "The body is over WORKER_MAX_BODY, or its tokens exceed a whole minute's budget and can never be admitted.",
        "`input_bytes` in the log line; WORKER_MAX_BODY and WORKER_TOKENS_PER_MINUTE in the deployment.",
        "The caller sends less or asks for fewer output tokens; or raise the setting if the gateway allows more.",
    ),
    ErrorCode.CONTENT_REJECTED: Entry(
        "A content filter of the gateway refused the input or cut the output.",
        "Is it one tenant, or all since a moment? All at once means that the gateway changed its filter.",
        "The caller changes the content; talk to the gateway if harmless content is refused.",
    ),
    ErrorCode.CANCELLED: Entry(
        "The request was revoked by its caller or an operator, as asked.",
        "Who revoked: the caller's log. A flood of these is a caller that gives up waiting.",
        "None. If callers give up, look at queue_wait_seconds.",
    ),
    ErrorCode.INCOMPLETE_MAX_TOKENS: Entry(
        "The response ended at its token limit; what there is was delivered.",
        "`max_output_tokens` of the caller; reasoning tokens count towards it.",
        "The caller raises `max_output_tokens`; nothing to do here.",
    ),
}
_UPSTREAM: Final[Mapping[str, Entry]] = {
    ErrorCode.MODEL_UNAVAILABLE: Entry(
        "The gateway does not serve the model to this account (404), or has no channel for it now (503).",
        "`http_status` of the event: 404 stays, 503 passes. The gateway's model list and status page.",
        "404: have the model enabled for the account. 503: wait, or have a channel added; requests were tried 3 times.",
    ),
    ErrorCode.AUTHENTICATION_FAILED: Entry(
        "The gateway refuses our key, confirmed by a second call; only one probe at a time is sent now.",
        "Was the key rotated or revoked? `upstream.request_id` of the event is what the gateway's support asks for.",
        "Put a working key into the mounted secret: it is read at every call, no restart. The next probe (within "
        "WORKER_PROBE_INTERVAL) opens the gate; `resume` asks at once. Lanes with patience left lose nothing.",
        "responses-worker resume",
    ),
    ErrorCode.PERMISSION_DENIED: Entry(
        "The key works but may not do this (403); requests fail at once and finally.",
        "The key's rights and the account's region or model allowance, at the gateway.",
        "Give the key the right, or use another key; failed requests must be enqueued again by their callers.",
        "responses-worker results --json | jq 'select(.error.code==\"permission_denied\") | .error.upstream'",
    ),
    ErrorCode.QUOTA_EXHAUSTED: Entry(
        "The account at the gateway has no money left; only one probe at a time is sent now.",
        "The balance at the gateway. Tokens by hour: did something burn it? `responses_worker_tokens_total`.",
        "Pay. The next probe (within WORKER_PROBE_INTERVAL) opens the gate; `resume` asks at once.",
        "responses-worker resume",
    ),
    ErrorCode.RATE_LIMITED: Entry(
        "Deadlines passed while requests waited for the rate budget: more was asked than the gateway allows.",
        "`fleet_rate_per_minute` against demand, and which lane and tenants are in the event. A flood by one tenant?",
        "Raise the limit at the gateway and WORKER_REQUESTS_PER_MINUTE; or give the flood a lane of its own with a "
        "small weight. More workers do not help.",
    ),
    ErrorCode.UPSTREAM_OVERLOADED: Entry(
        "The gateway says it has too much to do, on every attempt.",
        "The gateway's status page; `upstream_calls_total` by status: since when, what share?",
        "Wait: attempts are spread and the breaker opens by itself. Lower WORKER_MAX_IN_FLIGHT if we are the load.",
    ),
    ErrorCode.UPSTREAM_ERROR: Entry(
        "The gateway failed for reasons of its own, on every attempt of these requests.",
        "`http_status` and `upstream.request_id` of the event; the gateway's status page.",
        "Wait, or tell the gateway's support with the request id. Callers enqueue again: results are retryable.",
    ),
    ErrorCode.UPSTREAM_TIMEOUT: Entry(
        "No answer within WORKER_REQUEST_TIMEOUT; such calls may have been billed, so they are made twice at most.",
        "`upstream_duration_seconds` p95: slower for everybody, or long generations of one tenant?",
        "Slower gateway: wait or tell its support. Long generations: raise `timeout` of those requests.",
    ),
    ErrorCode.UPSTREAM_UNREACHABLE: Entry(
        "No connection to the gateway comes about: DNS, TLS, network policy or the gateway itself. Nothing is billed.",
        "From a worker's pod: can it resolve and reach WORKER_UPSTREAM_URL? One pod or all?",
        "Repair the network, the egress policy or the address; everything goes on by itself.",
        "kubectl exec POD -- python -c \"import urllib.request as u; u.urlopen('WORKER_UPSTREAM_URL', timeout=5)\"",
    ),
    ErrorCode.INVALID_RESPONSE: Entry(
        "The gateway answers 200 with something that is no usable response; it may have been billed.",
        "Did the gateway or a proxy before it change? `upstream.request_id` of the event.",
        "Tell the gateway's support. If its contract changed for good, ours must: api_contracts/responses.py.",
    ),
    State.BREAKER_OPEN: Entry(
        "More than half of the recent calls failed in the gateway, and a probe failed as well: calls wait.",
        "`upstream_calls_total` by status; the gateway's status page.",
        "Wait: a probe every 2 to 15 s opens the breaker. `resume` opens it at once; `pause` keeps requests queued.",
        "responses-worker resume",
    ),
}
_OURS: Final[Mapping[str, Entry]] = {
    ErrorCode.DEADLINE_EXCEEDED: Entry(
        "Requests ran out of time: queued too long, or their last attempts failed too close to the deadline.",
        "`queue_ms` and `upstream` of the event: waited, or failed? `queue_wait_seconds` by lane.",
        "Waited: see queue_age. Failed: see the upstream's error that is attached. Or callers ask for too much.",
    ),
    ErrorCode.INTERNAL_ERROR: Entry(
        "A defect of ours ended the request; the caller was told so. See bug and poison, which carry the detail.",
        "Issues of class `bug` and `poison` of the same time.",
        "As there.",
    ),
    State.BUG: Entry(
        "An exception that nobody expected; only its request failed.",
        "The stack in the event, and `release`: new since a deploy? Its text is withheld, it may quote a prompt.",
        "Roll back if it came with a release; otherwise fix it. Above 5 % of requests treat it as an outage.",
        "kubectl rollout undo deployment/responses-worker",
    ),
    State.POISON: Entry(
        "Workers died three times while they called for one request; it is now a dead letter and was answered.",
        "Restarts and memory of the workers: out of memory? `dead show` tells the size of the message.",
        "Raise the memory limit or refuse such requests; replay the dead letter when a worker survives it.",
        "responses-worker dead list",
    ),
    State.MESSAGE_UNREADABLE: Entry(
        "A message that is no request, often not even JSON; it is a dead letter.",
        "`reason` of the dead letter. Who pushes to the lane with something else than Celery's JSON serializer?",
        "Have the producer repaired; drop or replay the dead letters.",
        "responses-worker dead list",
    ),
    State.LEDGER_REFUSED: Entry(
        "A Redis script failed for a reason that stays: a key of another type, rights, or a defect of ours.",
        "`error` in the `ledger.refused` line; did somebody write to `responses:*` by hand, or change the ACL?",
        "Repair the key or the ACL. The request keeps its lease and is tried again when that runs out.",
        "redis-cli ACL LOG 5",
    ),
    State.RESULTS_UNPUBLISHABLE: Entry(
        "An answer exists and cannot be written to its stream: callers see nothing, and calls were paid for.",
        "`error` of the `ledger.refused` line: is the result stream's key of another type, or Redis read-only?",
        "Repair the key (rename what is in the way). The request is made again when its lease runs out: pause first if "
        "many are affected, so that nothing is paid for twice.",
        "responses-worker pause; redis-cli TYPE responses:results",
    ),
    State.RESULTS_HIGH_WATER: Entry(
        "A result stream holds over WORKER_RESULTS_HIGH_WATER entries that a group has not read: workers take no more.",
        "Which stream and group: the event's `detail`. Is that consumer down, or does it not acknowledge?",
        "Start the consumer. A group that nobody needs any more: destroy it, and its backlog is trimmed.",
        "redis-cli XINFO GROUPS responses:results",
    ),
    State.REDIS_LOST: Entry(
        "Redis has not served this process for 60 s; requests and answers wait, nothing is lost that Redis kept.",
        "Redis itself: up, reachable, out of memory (`OutOfMemoryError`), read-only after a failover?",
        "Bring Redis back. Workers go on by themselves; /readyz says 503 until then, /livez stays 200.",
        "redis-cli INFO server memory replication",
    ),
    State.LOOP_STALLED: Entry(
        "The event loop of one worker shows no heartbeat for 12 s: nothing moves there, and its liveness probe fails.",
        "`stack` of the `loop.stalled` line: where it stands. CPU throttling of the pod?",
        "Kubernetes restarts it; its requests run again once their leases end. Fix what blocks, or raise the limit.",
        "kubectl top pod -l app.kubernetes.io/name=responses-worker",
    ),
    State.CONSUMER_STALLED: Entry(
        "Celery's consumer of one worker stands still: no remote control, no revoke; requests go on until the restart.",
        "`stack` of the `consumer.stalled` line.",
        "Kubernetes restarts it.",
    ),
    State.WORKER_FAILED: Entry(
        "The request loop of a process died of an exception; the process leaves and is started again.",
        "The stack in the event, and `release`.",
        "Roll back if it came with a release. A loop of restarts: look at the settings and at Redis.",
        "kubectl rollout undo deployment/responses-worker",
    ),
}
_ALERTS: Final[Mapping[str, Entry]] = {
    "error_budget_burn": Entry(
        "Answers fail, through no fault of their callers, faster than the objective can bear.",
        '`sum by (code) (rate(responses_worker_results_total{outcome="failed"}[5m]))`: which code? Go to its entry.',
        "That of the code. If only one lane or tenant is hit, a lane of its own contains it.",
    ),
    "queue_age": Entry(
        "Requests wait longer in their lane than the target.",
        "`waiting_seconds_total` by reason: what for? `requests` or `tokens`: the budget; `process_full`: workers.",
        "Budget: raise it, or shed. process_full: more workers, up to `useful_concurrency` over WORKER_CONCURRENCY.",
        "responses-worker status --watch",
    ),
    "nothing_moving": Entry(
        "Messages wait and no delivery has finished for 10 minutes.",
        "`waiting_seconds_total` by reason says why. No worker at all? `up`, KEDA, pods pending.",
        "That of the reason: the states of this runbook have the same names. Paused by an operator: `resume`.",
        "responses-worker status",
    ),
    "workers_silent": Entry(
        "Messages wait and no worker shows metrics.",
        "Pods: pending, crash-looping? A wrong setting stops the start with one line per mistake.",
        "Repair the deployment; messages wait in Redis.",
        "kubectl describe pod -l app.kubernetes.io/name=responses-worker",
    ),
    "dead_letters": Entry(
        "Messages were put aside because nobody could read them or because workers died of them.",
        "`reason` of the dead letters.",
        "See message_unreadable and poison.",
        "responses-worker dead list",
    ),
    "calls_lost": Entry(
        "Workers die in the middle of calls, which may be paid for twice.",
        "Restarts, out-of-memory kills, evictions of the pods.",
        "Raise limits; let terminationGracePeriodSeconds exceed WORKER_SHUTDOWN_GRACE.",
        "kubectl get events --field-selector reason=OOMKilling",
    ),
    "throttled": Entry(
        "The gateway answers 429; the fleet pauses and slows down. Requests wait and nothing fails yet.",
        '`upstream_calls_total{status="429"}` against the rest; does somebody else use the same key?',
        "None as long as queue_age is quiet. Otherwise raise the limit at the gateway.",
    ),
    "paused": Entry(
        "An operator paused the fleet; requests wait until their deadlines.",
        "Who paused, and why: ask before you resume.",
        "`resume` when the reason is gone.",
        "responses-worker resume",
    ),
}

RUNBOOK: Final[Mapping[str, Entry]] = {**_CALLERS, **_UPSTREAM, **_OURS, **_ALERTS}
"""Entries by name; every Kind has one."""
ALERTS: Final = frozenset(_ALERTS)
"""Entries that rules, not events, lead to."""
