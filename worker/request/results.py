"""The one answer to a request, as bytes: our envelope around the gateway's untouched response. Pure."""

from collections.abc import Mapping
from typing import Any

import orjson

from api_contracts import CONTRACT_VERSION
from worker.queue.attempts import timestamp
from worker.queue.claims import Published
from worker.queue.usage import Used
from worker.request.decisions import Finish
from worker.request.execution import Execution


def build_result(execution: Execution, ending: Finish) -> Published:
    """The result, with the request's history and times; `response` is spliced in byte for byte.

    So unknown fields and their order survive.
    """
    message, error, response = execution.request, ending.error, ending.response
    result = orjson.dumps(
        {
            "contract_version": CONTRACT_VERSION,
            "request_id": message.request_id,
            "tenant": message.tenant,
            "lane": execution.delivery.lane,
            "outcome": ending.outcome,
            "response": None if response is None else orjson.Fragment(response),
            "error": None if error is None else error.model_dump(mode="json"),
            "attempts": [orjson.Fragment(attempt.encode()) for attempt in execution.attempts],
            "timing": _timing(execution),
            "metadata": message.metadata,
            "trace_id": message.trace_id,
            **({} if execution.cost_usd is None else {"cost_usd": execution.cost_usd}),
        }
    )
    retryable = error is not None and error.retryable
    failed_code = error.code if error is not None and retryable and ending.outcome == "failed" else ""
    return Published(ending.outcome, retryable, message.streams, result, failed_code, _used(execution, ending))


def _used(execution: Execution, ending: Finish) -> Used:
    """For the accounts: the numbers that stand in the result."""
    terms, answer = execution.request.terms, execution.answer
    usage = answer.usage if answer and ending.response is not None else None
    return Used(
        model=terms.model if terms else "",
        input_tokens=usage.input_tokens if usage else 0,
        cached_tokens=usage.cached_tokens if usage else 0,
        output_tokens=usage.output_tokens if usage else 0,
        cost_usd=execution.cost_usd or 0.0,
    )


def _timing(execution: Execution) -> Mapping[str, Any]:
    """The times of the request. A delivery that never claimed its request id has only the present time."""
    finished_at_ms = enqueued_at_ms = claimed_at_ms = execution.now_ms
    source = "worker"
    if execution.claimed:
        lease = execution.lease
        enqueued_at_ms, claimed_at_ms, source = lease.enqueued_at_ms, lease.claimed_at_ms, lease.enqueued_at_source
    return {
        "enqueued_at": timestamp(enqueued_at_ms),
        "enqueued_at_source": source,
        "claimed_at": timestamp(claimed_at_ms),
        "finished_at": timestamp(finished_at_ms),
        "queue_ms": max(0, claimed_at_ms - enqueued_at_ms),
        "throttle_ms": execution.throttle_ms,
        "upstream_ms": execution.upstream_ms,
        "total_ms": max(0, finished_at_ms - enqueued_at_ms),
    }
