"""The one answer to a request, as bytes: our envelope around the gateway's untouched response. Pure."""

from collections.abc import Mapping
from typing import Any

import orjson

from api_contracts import CONTRACT_VERSION, MappedError
from worker.queue.attempts import timestamp
from worker.queue.claims import Published
from worker.request.decisions import Finish
from worker.request.execution import Execution


def build_result(execution: Execution, ending: Finish) -> Published:
    """The result of a claimed request, with its history and its times."""
    result = _encode(execution, ending.outcome, ending.error, ending.response, _timing(execution))
    retryable = ending.error is not None and ending.error.retryable
    return Published(ending.outcome, retryable, execution.request.streams, result)


def build_refusal(execution: Execution, error: MappedError) -> bytes:
    """The failed result of a delivery that does not own its request id; its times are all now."""
    now = timestamp(execution.now_ms)
    moments = dict.fromkeys(("enqueued_at", "claimed_at", "finished_at"), now)
    durations = dict.fromkeys(("queue_ms", "throttle_ms", "upstream_ms", "total_ms"), 0)
    return _encode(execution, "failed", error, None, {**moments, "enqueued_at_source": "worker", **durations})


def _timing(execution: Execution) -> Mapping[str, Any]:
    lease, finished_at_ms = execution.lease, execution.now_ms
    return {
        "enqueued_at": timestamp(lease.enqueued_at_ms),
        "enqueued_at_source": lease.enqueued_at_source,
        "claimed_at": timestamp(lease.claimed_at_ms),
        "finished_at": timestamp(finished_at_ms),
        "queue_ms": max(0, lease.claimed_at_ms - lease.enqueued_at_ms),
        "throttle_ms": execution.throttle_ms,
        "upstream_ms": execution.upstream_ms,
        "total_ms": max(0, finished_at_ms - lease.enqueued_at_ms),
    }


def _encode(
    execution: Execution, outcome: str, error: MappedError | None, response: bytes | None, timing: Mapping[str, Any]
) -> bytes:
    """The JSON; `response` is spliced in byte for byte, so that unknown fields and their order survive."""
    message = execution.request
    return orjson.dumps(
        {
            "contract_version": CONTRACT_VERSION,
            "request_id": message.request_id,
            "tenant": message.tenant,
            "lane": execution.delivery.lane,
            "outcome": outcome,
            "response": None if response is None else orjson.Fragment(response),
            "error": None if error is None else error.model_dump(mode="json"),
            "attempts": [orjson.Fragment(attempt.encode()) for attempt in execution.attempts],
            "timing": timing,
            "metadata": message.metadata,
            "trace_id": message.trace_id,
        }
    )
