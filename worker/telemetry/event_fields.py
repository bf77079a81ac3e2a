"""One execution as the fields of a log line, an incident or a trace: sizes, ids, codes and durations. Pure."""

from collections.abc import Mapping
from typing import Any, Final

from api_contracts import ErrorCode
from api_contracts.queues import result_stream
from worker.failures.classes import Kind, State
from worker.failures.failure import Route
from worker.failures.foreign_words import foreign_id
from worker.queue.attempts import timestamp
from worker.queue.messages import Message
from worker.request.execution import Execution
from worker.request.policy import POISON_CRASHES
from worker.telemetry.reports import Facts
from worker.telemetry.tracing import RequestSpan, span_id

_HASH_DIGITS: Final = 8
_PROVIDER: Final = "openai"


def ids_of(execution: Execution) -> dict[str, str]:
    """The ids that every log line of this request carries."""
    message = execution.message
    if message is None:
        return {"lane": execution.delivery.lane}
    return {
        "request_id": message.request_id,
        "task_id": message.task_id,
        "tenant": message.tenant,
        "lane": execution.delivery.lane,
        "trace_id": message.trace_id,
        "span_id": span_id(execution.delivery.token),
    }


def line_of(execution: Execution) -> dict[str, Any]:
    """The fields of the canonical line, without those that are empty."""
    message, error, answer, call = execution.message, execution.error, execution.answer, execution.last_call
    usage = answer.usage if answer else None
    said = error.upstream if error else None
    body = message.body if message else b""
    fields = {
        **ids_of(execution),
        "reply_to": message.reply_to if message else None,
        "model": model_of(message),
        "upstream": execution.attempts[-1].upstream if execution.attempts else None,
        "response_model": foreign_id(answer.model, body, model=model_of(message) or "") if answer else None,
        "response_id": foreign_id(answer.response_id, body) if answer else None,
        "error_code": error.code if error else None,
        "retryable": error.retryable if error else None,
        "http_status": call.http_status if call else None,
        "upstream_code": foreign_id(said.code, body) if said else None,
        "upstream_request_id": call.upstream_request_id if call else None,
        "retry_after_s": execution.last_failure.retry_after_s if execution.last_failure else None,
        "attempts": execution.number,
        "failures": execution.spent.failures,
        "crashes": (execution.lease.crashes or None) if execution.claimed else None,
        "queue_ms": queue_ms(execution),
        "throttle_ms": execution.throttle_ms,
        "upstream_ms": execution.upstream_ms,
        "publish_ms": execution.publish_ms if execution.finished else None,
        "total_ms": execution.now_ms - execution.lease.enqueued_at_ms if execution.claimed else None,
        "deadline_left_ms": execution.lease.deadline_ms - execution.now_ms if execution.claimed else None,
        "input_tokens": usage.input_tokens if usage else None,
        "cached_tokens": usage.cached_tokens if usage else None,
        "output_tokens": usage.output_tokens if usage else None,
        "reasoning_tokens": usage.reasoning_tokens if usage else None,
        "cost_usd": execution.cost_usd,
        "input_bytes": execution.message_bytes,
        "output_bytes": len(answer.raw) if answer else None,
        "body_sha256_8": message.fingerprint[:_HASH_DIGITS] if message else None,
        "unknown_keys": _unknown_keys(message),
    }
    return {name: value for name, value in fields.items() if value is not None}


def _unknown_keys(message: Message | None) -> list[str | None] | None:
    """Names that the caller may have mistyped, told to help it; a sentence is no name, and may be content."""
    keys = message.terms.unknown_keys if message and message.terms else ()
    return [foreign_id(key, b"") for key in keys] or None


def facts_of(execution: Execution) -> Facts:
    """The request, as an incident shows it."""
    message, error, call = execution.message, execution.error, execution.last_call
    if message is None:
        return Facts(lane=execution.delivery.lane)
    said = error.upstream if error else None
    return Facts(
        upstream=execution.attempts[-1].upstream if execution.attempts else "default",
        lane=execution.delivery.lane,
        tenant=message.tenant,
        request_id=message.request_id,
        task_id=message.task_id,
        trace_id=message.trace_id,
        span_id=span_id(execution.delivery.token),
        model=model_of(message) or "",
        http_status=(error.http_status if error else None) or (call.http_status if call else None),
        retryable=error.retryable if error else None,
        attempts=execution.number,
        upstream_code=foreign_id(said.code, message.body) if said else None,
        upstream_request_id=(call.upstream_request_id if call else None)
        or (foreign_id(said.request_id, message.body) if said else None),
        retry_after_s=execution.last_failure.retry_after_s if execution.last_failure else None,
        enqueued_at=timestamp(execution.lease.enqueued_at_ms) if execution.claimed else "",
        queue_ms=queue_ms(execution),
        throttle_ms=execution.throttle_ms,
        upstream_ms=execution.upstream_ms,
    )


def kind_of(execution: Execution) -> Kind | None:
    """The failure class of a failed result; None where another event reports it."""
    if execution.error is None:
        return None
    if execution.message is not None and execution.message.dead_letter_reason and not execution.message.too_large:
        return State.MESSAGE_UNREADABLE
    if execution.error.code is not ErrorCode.INTERNAL_ERROR:
        return execution.error.code
    return State.POISON if execution.claimed and execution.lease.crashes >= POISON_CRASHES else None


def trace_of(execution: Execution, server: str) -> RequestSpan:
    """The times of a claimed delivery."""
    message, lease = execution.request, execution.lease
    return RequestSpan(
        lane=execution.delivery.lane,
        task_id=message.task_id,
        message_bytes=execution.message_bytes,
        enqueued_at_ms=lease.enqueued_at_ms,
        claimed_at_ms=lease.now_ms,
        finished_at_ms=execution.now_ms,
        publish_ms=execution.publish_ms,
        result_stream=result_stream(message.reply_to) if execution.finished else "",
        code=execution.error.code if execution.error else _last_code(execution),
        retries=execution.spent.failures,
        calls=tuple(execution.calls),
        server=server,
        gen_ai=_gen_ai(execution, message),
    )


def queue_ms(execution: Execution) -> int | None:
    """From enqueueing to this claim."""
    return max(0, execution.lease.claimed_at_ms - execution.lease.enqueued_at_ms) if execution.claimed else None


def first_claim(execution: Execution) -> bool:
    """True for the request's first claim. All its waiting was then queueing."""
    return (
        execution.claimed
        and not execution.lease.attempts
        and not execution.lease.throttle_ms
        and not execution.lease.crashes
    )


def model_of(message: Message | None) -> str | None:
    """One of the contract's models."""
    return message.terms.model if message and message.terms else None


def dead_letter(execution: Execution, disposition: str) -> State | None:
    """The reason for this delivery's dead letter; None where it left none."""
    if kind_of(execution) is State.POISON:
        return State.POISON
    if disposition == "dead_lettered" and execution.message is not None:
        return State.LEDGER_REFUSED  # a key of the request's holds something else
    unreadable = disposition == "dead_lettered" or (
        execution.message is not None and execution.message.dead_letter_reason
    )
    return State.MESSAGE_UNREADABLE if unreadable else None


def _last_code(execution: Execution) -> str:
    failure = execution.last_failure
    return failure.code if failure and failure.route is not Route.THROTTLE and execution.answer is None else ""


def _gen_ai(execution: Execution, message: Message) -> Mapping[str, Any]:
    terms = message.terms
    answer = execution.answer
    usage = answer.usage if answer else None
    known = {
        "gen_ai.operation.name": "responses",
        "gen_ai.provider.name": _PROVIDER,
        "gen_ai.request.model": terms.model if terms else None,
        "gen_ai.request.max_tokens": terms.max_output_tokens if terms else None,
        "gen_ai.response.streaming": terms.streams if terms else None,
        "gen_ai.response.model": foreign_id(answer.model, message.body, model=model_of(message) or "")
        if answer
        else None,
        "gen_ai.response.id": foreign_id(answer.response_id, message.body) if answer else None,
        "gen_ai.response.finish_reasons": [answer.status] if answer else None,
        "gen_ai.usage.input_tokens": usage.input_tokens if usage else None,
        "gen_ai.usage.cache_read.input_tokens": usage.cached_tokens if usage else None,
        "gen_ai.usage.output_tokens": usage.output_tokens if usage else None,
        "gen_ai.usage.reasoning.output_tokens": usage.reasoning_tokens if usage else None,
        "gen_ai.usage.total_tokens": usage.total_tokens if usage else None,
    }
    return {name: value for name, value in known.items() if value is not None}
