"""What one delivery came to, for whoever asks: a log line, an incident, a trace. Pure; sizes, ids, codes, durations."""

import re
from collections.abc import Mapping
from typing import Any, Final

from api_contracts import ErrorCode
from api_contracts.queues import result_stream
from worker.failures.classes import Kind, State
from worker.failures.failure import Route
from worker.queue.messages import Message
from worker.request.execution import Execution
from worker.request.policy import POISON_CRASHES
from worker.request.results import timestamp
from worker.telemetry.reports import Facts
from worker.telemetry.tracing import RequestSpan

_HASH_DIGITS: Final = 8
_WORD: Final = re.compile(r"[A-Za-z0-9._:/\-]{1,64}")
_PROVIDER: Final = "openai"


def line_of(run: Execution) -> dict[str, Any]:
    """The fields of the canonical line; what a delivery has not got, it does not name."""
    message, error, answer = run.message, run.error, run.answer
    usage = answer.usage if answer else None
    said = error.upstream if error else None
    fields = {
        **run.ids(),
        "reply_to": message.reply_to if message else None,
        "model": model_of(message),
        "response_model": _word(answer.model) if answer else None,
        "response_id": _word(answer.response_id) if answer else None,
        "error_code": error.code if error else None,
        "retryable": error.retryable if error else None,
        "http_status": run.http_status,
        "upstream_code": _word(said.code) if said else None,
        "upstream_request_id": _word(run.upstream_request_id),
        "retry_after_s": run.last_failure.retry_after_s if run.last_failure else None,
        "attempts": run.number,
        "failures": run.failures,
        "crashes": (run.lease.crashes or None) if run.claimed else None,
        "queue_ms": queue_ms(run),
        "throttle_ms": run.throttle_ms,
        "upstream_ms": run.upstream_ms,
        "publish_ms": run.publish_ms if run.answered else None,
        "total_ms": run.now_ms - run.lease.enqueued_at_ms if run.claimed else None,
        "deadline_left_ms": run.lease.deadline_ms - run.now_ms if run.claimed else None,
        "input_tokens": usage.input_tokens if usage else None,
        "cached_tokens": usage.cached_tokens if usage else None,
        "output_tokens": usage.output_tokens if usage else None,
        "reasoning_tokens": usage.reasoning_tokens if usage else None,
        "input_bytes": len(run.delivery.message),
        "output_bytes": len(answer.raw) if answer else None,
        "body_sha256_8": message.fingerprint[:_HASH_DIGITS] if message else None,
        "unknown_keys": (message.request.unknown_keys or None) if message and message.request else None,
    }
    return {name: value for name, value in fields.items() if value is not None}


def facts_of(run: Execution) -> Facts:
    """What an incident tells of the request that it is about."""
    message, error = run.message, run.error
    if message is None:
        return Facts(lane=run.delivery.lane)
    said = error.upstream if error else None
    return Facts(
        lane=run.delivery.lane,
        tenant=message.tenant,
        request_id=message.request_id,
        task_id=message.task_id,
        trace_id=message.trace_id,
        span_id=run.ids()["span_id"],
        model=model_of(message) or "",
        http_status=(error.http_status if error else None) or run.http_status,
        retryable=error.retryable if error else None,
        attempts=run.number,
        upstream_code=_word(said.code) if said else None,
        upstream_request_id=_word(run.upstream_request_id or (said.request_id if said else None)),
        retry_after_s=run.last_failure.retry_after_s if run.last_failure else None,
        enqueued_at=timestamp(run.lease.enqueued_at_ms) if run.claimed else "",
        queue_ms=queue_ms(run),
        throttle_ms=run.throttle_ms,
        upstream_ms=run.upstream_ms,
    )


def kind_of(run: Execution) -> Kind | None:
    """The failure class of a delivery that ended in a failed result; None where somebody else tells of it."""
    if run.error is None:
        return None
    if run.message is not None and run.message.dead:
        return State.MESSAGE_UNREADABLE
    if run.error.code is not ErrorCode.INTERNAL_ERROR:
        return run.error.code
    return State.POISON if run.claimed and run.lease.crashes >= POISON_CRASHES else None


def trace_of(run: Execution, server: str) -> RequestSpan:
    """The times of a claimed delivery."""
    message, lease = run.request, run.lease
    return RequestSpan(
        lane=run.delivery.lane,
        task_id=message.task_id,
        message_bytes=len(run.delivery.message),
        enqueued_at_ms=lease.enqueued_at_ms,
        claimed_at_ms=lease.now_ms,
        finished_at_ms=run.now_ms,
        publish_ms=run.publish_ms,
        result_stream=result_stream(message.reply_to) if run.answered else "",
        code=run.error.code if run.error else _last_code(run),
        retries=run.failures,
        calls=tuple(run.calls),
        server=server,
        gen_ai=_gen_ai(run, message),
    )


def queue_ms(run: Execution) -> int | None:
    """From enqueueing to this claim."""
    return max(0, run.lease.claimed_at_ms - run.lease.enqueued_at_ms) if run.claimed else None


def first_claim(run: Execution) -> bool:
    """Whether nobody had claimed this request before: only then was all its waiting queueing."""
    return run.claimed and not run.lease.attempts and not run.lease.throttle_ms and not run.lease.crashes


def model_of(message: Message | None) -> str | None:
    """One of the contract's models."""
    return message.request.body.model if message and message.request else None


def dead_letter(run: Execution, disposition: str) -> State | None:
    """Why this delivery left a dead letter; None where it left none."""
    if kind_of(run) is State.POISON:
        return State.POISON
    if disposition == "dead_lettered" and run.message is not None:
        return State.LEDGER_REFUSED  # a key of the request's holds something else
    unreadable = disposition == "dead_lettered" or (run.message is not None and run.message.dead)
    return State.MESSAGE_UNREADABLE if unreadable else None


def _last_code(run: Execution) -> str:
    failure = run.last_failure
    return failure.code if failure and failure.route is not Route.THROTTLE and run.answer is None else ""


def _gen_ai(run: Execution, message: Message) -> Mapping[str, Any]:
    body = message.request.body if message.request else None
    answer = run.answer
    usage = answer.usage if answer else None
    known = {
        "gen_ai.operation.name": "responses",
        "gen_ai.provider.name": _PROVIDER,
        "gen_ai.request.model": body.model if body else None,
        "gen_ai.request.max_tokens": body.max_output_tokens if body else None,
        "gen_ai.response.streaming": body.stream if body else None,
        "gen_ai.response.model": _word(answer.model) if answer else None,
        "gen_ai.response.id": _word(answer.response_id) if answer else None,
        "gen_ai.response.finish_reasons": [answer.status] if answer else None,
        "gen_ai.usage.input_tokens": usage.input_tokens if usage else None,
        "gen_ai.usage.cache_read.input_tokens": usage.cached_tokens if usage else None,
        "gen_ai.usage.output_tokens": usage.output_tokens if usage else None,
        "gen_ai.usage.reasoning.output_tokens": usage.reasoning_tokens if usage else None,
        "gen_ai.usage.total_tokens": usage.total_tokens if usage else None,
    }
    return {name: value for name, value in known.items() if value is not None}


def _word(text: str | None) -> str | None:
    """The gateway's own ids and codes, as long as they look like some: what it sends there is not ours to trust."""
    return text if text and _WORD.fullmatch(text) else None
