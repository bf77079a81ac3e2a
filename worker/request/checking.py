"""Checks what a request asks of its output: its schemas before any call, and the answer behind each."""

from typing import Any, Final, cast

import msgspec

from api_contracts import ErrorCode, MappedError, ResponseObject, Violation
from worker.checks.findings import Finding
from worker.failures.failure import COSTLY_ATTEMPTS, Failure, output_invalid
from worker.gateway.answers import Answer
from worker.queue.messages import Message
from worker.request.decisions import CANCELLED, Abandon, Decision, Finish
from worker.request.execution import Execution
from worker.request.ports import CheckerPort
from worker.request.retries import CALL_TIME_S

_COMPLAINT: Final = (
    "Your last answer was checked by a program, and it does not keep to the required schema:\n\n{complaint}\n\n"
    "Answer the request again, and keep to the schema."
)


def is_checked(message: Message) -> bool:
    """Whether its schemas are checked before its call."""
    terms = message.terms
    return terms is not None and (terms.holds_schema or terms.check_output)


async def schema_fault(checker: CheckerPort, message: Message) -> MappedError | None:
    """The error of a request whose schemas are none; None for most requests, without a question."""
    terms = message.terms
    if terms is None or not is_checked(message):
        return None
    finding = await checker.request(message.body, tools=terms.check_output)
    return finding and _invalid(finding)


async def checked(checker: CheckerPort, execution: Execution, outcome: Answer | Failure) -> Answer | Failure:
    """The outcome of a call, or the failure of its answer where that must be checked and is at fault."""
    terms = execution.request.terms
    if terms is None or not terms.check_output or not isinstance(outcome, Answer) or outcome.status != "completed":
        return outcome
    finding = await checker.answer(execution.body, outcome.raw)
    if finding is None:
        return outcome
    failure = output_invalid(outcome.raw, _violation(finding, "output_schema"))
    execution.reject(failure, reasked(execution.body, outcome.raw, finding.complaint) if finding.complaint else None)
    return failure


def may_reask(execution: Execution, max_attempts: int) -> bool:
    """Whether the model may be asked once more: the caller wants it, and attempts, time and this process allow it."""
    terms, rejections = execution.request.terms, [attempt.code for attempt in execution.attempts]
    return (
        terms is not None
        and rejections.count(ErrorCode.OUTPUT_INVALID) <= terms.reask
        and execution.rejected_body is not None
        and execution.spent.failures < max_attempts
        and execution.costly < COSTLY_ATTEMPTS
        and execution.interruption is None
        and execution.time_left_s > CALL_TIME_S
    )


def or_rejected(execution: Execution, decision: Decision) -> Decision:
    """The decision, unless an answer is in hand that was rejected and paid for: nothing else is better than that."""
    held = execution.rejected
    if held is None or isinstance(decision, Abandon):
        return decision
    if isinstance(decision, Finish) and (decision.response is not None or decision.error == CANCELLED):
        return decision
    return Finish("failed", held.mapped(), held.response)


def reasked(body: bytes, response: bytes, complaint: str) -> bytes:
    """The body of the second call: the first, its answer's text, and the checker's words.

    A conversation that the gateway keeps has both the input and the answer already.
    """
    request = cast("dict[str, Any]", msgspec.json.decode(body))
    said = {"role": "user", "content": _COMPLAINT.format(complaint=complaint)}
    if request.get("conversation"):
        return msgspec.json.encode(request | {"input": [said]})
    asked = request.get("input", [])
    items: list[Any] = [{"role": "user", "content": asked}] if isinstance(asked, str) else list(asked)
    text = ResponseObject.model_validate_json(response).output_text
    answer = [{"role": "assistant", "content": text}] if text else []
    return msgspec.json.encode(request | {"input": [*items, *answer, said]})


def _violation(finding: Finding, kind: str) -> Violation:
    return Violation(field=finding.field, message=f"{finding.field} {finding.rule}", type=kind)


def _invalid(finding: Finding) -> MappedError:
    violation = _violation(finding, "json_schema")
    return MappedError(
        code=ErrorCode.INVALID_REQUEST, message=violation.message, retryable=False, violations=[violation]
    )
