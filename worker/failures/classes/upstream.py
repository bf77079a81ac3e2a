"""Failures of the gateway, and of the account at the gateway."""

from collections.abc import Mapping
from typing import Final

from api_contracts.errors import ErrorCode
from worker.failures.classes.model import (
    RESUME,
    SEES_BILLED,
    SEES_NOTHING,
    SEES_RETRYABLE,
    ErrorClass,
    FailureClass,
    Route,
    RunbookEntry,
    State,
)

ERRORS: Final[Mapping[ErrorCode, ErrorClass]] = {
    ErrorCode.MODEL_UNAVAILABLE: ErrorClass(
        route=Route.ANSWER,
        retryable=False,
        message="The upstream does not serve this model.",
        trace_status="not_found",
        level="error",
        component="upstream",
        fault="upstream",
        customer_sees="a failed result",
        runbook=RunbookEntry(
            "The gateway does not serve the model to this account (404), or has no channel for it now (503).",
            "`http_status` of the event: 404 stays, 503 passes. The gateway's model list and status page.",
            "404: have the model enabled for the account. 503: wait, or have a channel added; the worker called three "
            "times.",
            "responses-worker results --code model_unavailable --json",
        ),
    ),
    ErrorCode.AUTHENTICATION_FAILED: ErrorClass(
        route=Route.CREDENTIAL,
        retryable=True,
        message="The upstream refused our credential.",
        trace_status="unauthenticated",
        level="fatal",
        component="upstream",
        fault="operator",
        customer_sees=SEES_NOTHING,
        pages=True,
        end_is_told=True,
        runbook=RunbookEntry(
            "The gateway refuses our key, confirmed by a second call. Only one probe at a time is sent now.",
            "Was the key rotated or revoked? The gateway's support asks for `upstream.request_id` of the event.",
            "Put a working key into the mounted secret: it is read at every call, no restart. The next probe (within "
            "WORKER_PROBE_INTERVAL) opens the gate; `resume` probes at once. Lanes with patience left lose nothing.",
            RESUME,
        ),
    ),
    ErrorCode.PERMISSION_DENIED: ErrorClass(
        route=Route.ANSWER,
        retryable=False,
        message="The upstream does not let our credential do this.",
        trace_status="permission_denied",
        level="fatal",
        component="upstream",
        fault="operator",
        customer_sees="a failed result, final",
        pages=True,
        runbook=RunbookEntry(
            "The key works but may not do this (403). Requests fail at once and finally.",
            "The key's rights and the account's region or model allowance, at the gateway.",
            "Give the key the right, or use another key. Callers must enqueue failed requests again.",
            "responses-worker results --code permission_denied --json",
        ),
    ),
    ErrorCode.QUOTA_EXHAUSTED: ErrorClass(
        route=Route.CREDENTIAL,
        retryable=True,
        message="The upstream account has no quota left.",
        trace_status="resource_exhausted",
        level="fatal",
        component="upstream",
        fault="operator",
        customer_sees=SEES_NOTHING,
        pages=True,
        end_is_told=True,
        runbook=RunbookEntry(
            "The account at the gateway has no money left. Only one probe at a time is sent now.",
            "The balance at the gateway. Tokens by hour, `responses_worker_tokens_total`: did one tenant use it up?",
            "Pay. The next probe (within WORKER_PROBE_INTERVAL) opens the gate; `resume` probes at once.",
            RESUME,
        ),
    ),
    ErrorCode.UPSTREAM_OVERLOADED: ErrorClass(
        route=Route.RETRY,
        retryable=True,
        message="The upstream is overloaded.",
        trace_status="unavailable",
        level="error",
        component="upstream",
        fault="upstream",
        customer_sees=SEES_RETRYABLE,
        runbook=RunbookEntry(
            "The gateway said on every attempt that it had too much to do.",
            "The gateway's status page; `upstream_calls_total` by status: since when, what share?",
            "Wait: attempts are spread and the breaker opens by itself. Lower WORKER_MAX_IN_FLIGHT if our own calls "
            "are the load. `redrive` runs anew what failed.",
            "responses-worker redrive --code upstream_overloaded --dry-run",
        ),
    ),
    ErrorCode.UPSTREAM_ERROR: ErrorClass(
        route=Route.RETRY,
        retryable=True,
        message="The upstream failed.",
        trace_status="unavailable",
        level="error",
        component="upstream",
        fault="upstream",
        customer_sees=SEES_RETRYABLE,
        runbook=RunbookEntry(
            "The gateway failed for reasons of its own, on every attempt of these requests.",
            "`http_status` and `upstream.request_id` of the event; the gateway's status page.",
            "Wait, or tell the gateway's support with the request id. Once it is well, run them anew "
            "with `redrive`, or callers enqueue again: results are retryable.",
            "responses-worker redrive --code upstream_error --dry-run",
        ),
    ),
    ErrorCode.UPSTREAM_TIMEOUT: ErrorClass(
        route=Route.RETRY,
        retryable=True,
        message="The upstream did not answer in time.",
        costly=True,
        trace_status="deadline_exceeded",
        level="error",
        component="upstream",
        fault="upstream",
        customer_sees=SEES_BILLED,
        runbook=RunbookEntry(
            "No answer came within WORKER_REQUEST_TIMEOUT. Such calls may have been billed, so two are made at most.",
            "`upstream_duration_seconds` p95: slower for every tenant, or long generations of one tenant?",
            "Slower gateway: wait or tell its support. Long generations: raise `timeout` of those requests. "
            "`redrive` runs anew what failed.",
            "responses-worker redrive --code upstream_timeout --dry-run",
        ),
    ),
    ErrorCode.UPSTREAM_UNREACHABLE: ErrorClass(
        route=Route.RETRY,
        retryable=True,
        message="The upstream could not be reached.",
        trace_status="unavailable",
        level="error",
        component="upstream",
        fault="upstream",
        customer_sees=SEES_RETRYABLE,
        runbook=RunbookEntry(
            "No connection to the gateway can be opened: DNS, TLS, network policy or the gateway itself. Nothing is "
            "billed.",
            "`doctor` in a worker's pod: can it resolve and reach WORKER_UPSTREAM_URL? One pod or all?",
            "Repair the network, the egress policy or the address. Workers go on by themselves.",
            "responses-worker doctor",
        ),
    ),
    ErrorCode.INVALID_RESPONSE: ErrorClass(
        route=Route.RETRY,
        retryable=True,
        message="The upstream's answer is not a usable response.",
        costly=True,
        trace_status="data_loss",
        level="error",
        component="upstream",
        fault="upstream",
        customer_sees=SEES_BILLED,
        runbook=RunbookEntry(
            "The gateway answers 200 with a body that is no usable response. The call may have been billed.",
            "Did the gateway or a proxy in front of it change? `upstream.request_id` of the event.",
            "Tell the gateway's support. If its contract changed for good, change ours: api_contracts/responses.py. "
            "`redrive` runs anew what failed.",
            "responses-worker redrive --code invalid_response --dry-run",
        ),
    ),
}

STATES: Final[Mapping[State, FailureClass]] = {
    State.BREAKER_OPEN: FailureClass(
        level="error",
        component="upstream",
        fault="upstream",
        customer_sees=SEES_NOTHING,
        end_is_told=True,
        runbook=RunbookEntry(
            "More than half of the recent calls failed in the gateway, and a probe failed as well: calls wait.",
            "`upstream_calls_total` by status; the gateway's status page.",
            "Wait: a probe every 2 to 15 s opens the breaker. `resume` opens it now, `pause` keeps requests queued.",
            RESUME,
        ),
    ),
}
