"""Failures that operators cannot mend: the caller, or nobody, is at fault."""

from collections.abc import Mapping
from typing import Final

from api_contracts.errors import ErrorCode
from worker.failures.classes.model import ErrorClass, FailureClass, Route, RunbookEntry, State

ERRORS: Final[Mapping[ErrorCode, ErrorClass]] = {
    ErrorCode.INVALID_REQUEST: ErrorClass(
        route=Route.ANSWER,
        retryable=False,
        message="The request is not valid.",
        trace_status="invalid_argument",
        level=None,
        component="request",
        fault="caller",
        customer_sees="its own mistake, with the field that is wrong",
        runbook=RunbookEntry(
            "A caller's request breaks the contract, or the gateway says so.",
            "`violations` in the result, `tenant` in the log line. Is it one tenant, since a deploy of theirs?",
            "Tell the tenant. If every tenant has it, the gateway or our contract changed: compare the contract with "
            "the gateway's documentation.",
            "responses-worker results --code invalid_request --json",
        ),
    ),
    ErrorCode.DUPLICATE_CONFLICT: ErrorClass(
        route=Route.ANSWER,
        retryable=False,
        message="The request id belongs to a different request.",
        trace_status="already_exists",
        level=None,
        component="request",
        fault="caller",
        customer_sees="that the id belongs to another body",
        runbook=RunbookEntry(
            "A request id came twice with different bodies, or again after its result had expired.",
            "`tenant` and `request_id` in the log line: does the caller derive ids from a value that is not unique?",
            "The caller chooses ids that are unique per body. The first request is untouched.",
            "responses-worker show REQUEST_ID --tenant TENANT",
        ),
    ),
    ErrorCode.CONTEXT_LENGTH_EXCEEDED: ErrorClass(
        route=Route.ANSWER,
        retryable=False,
        message="The input is longer than the model can take.",
        trace_status="invalid_argument",
        level=None,
        component="request",
        fault="caller",
        customer_sees="that its input is too long",
        runbook=RunbookEntry(
            "The input does not fit the model.",
            "`input_bytes` in the log line.",
            "The caller shortens its input; operators have nothing to do.",
            "responses-worker results --code context_length_exceeded",
        ),
    ),
    ErrorCode.REQUEST_TOO_LARGE: ErrorClass(
        route=Route.ANSWER,
        retryable=False,
        message="The request is larger than the limits allow.",
        trace_status="out_of_range",
        level=None,
        component="request",
        fault="caller",
        customer_sees="that its request is too large",
        runbook=RunbookEntry(
            "The body is over WORKER_MAX_BODY, or its tokens exceed a whole minute's budget and can never be admitted.",
            "`input_bytes` in the log line; WORKER_MAX_BODY and WORKER_TOKENS_PER_MINUTE in the deployment.",
            "The caller sends less or asks for fewer output tokens. Raise the setting if the gateway allows more. "
            "A message that was too large to be read is among the dead letters: `responses-worker dead list`.",
            "responses-worker results --code request_too_large",
        ),
    ),
    ErrorCode.CONTENT_REJECTED: ErrorClass(
        route=Route.ANSWER,
        retryable=False,
        message="A content filter refused the input or the output.",
        trace_status="failed_precondition",
        level=None,
        component="request",
        fault="caller",
        customer_sees="that a filter refused the content",
        runbook=RunbookEntry(
            "A content filter of the gateway refused the input or cut the output.",
            "Is it one tenant, or every tenant since one moment? Every tenant at once: the gateway changed its filter.",
            "The caller changes the content. Talk to the gateway if harmless content is refused.",
            "responses-worker results --code content_rejected",
        ),
    ),
    ErrorCode.CANCELLED: ErrorClass(
        route=Route.ANSWER,
        retryable=False,
        message="The request was cancelled.",
        trace_status="cancelled",
        level=None,
        component="request",
        fault="caller",
        customer_sees="what it asked for",
        runbook=RunbookEntry(
            "The caller or an operator revoked the request.",
            "The caller's log says why. Many of these in a short time: a caller gives up waiting.",
            "None. If callers give up, look at queue_wait_seconds.",
            "responses-worker results --code cancelled",
        ),
    ),
    ErrorCode.OUTPUT_INVALID: ErrorClass(
        route=Route.ANSWER,
        retryable=True,
        message="The response breaks the schema that was asked for.",
        trace_status="failed_precondition",
        level=None,
        component="request",
        fault="none",
        customer_sees="a response that breaks its schema, marked as such; the calls were paid for",
        runbook=RunbookEntry(
            "A model's answer breaks the schema that its caller asked for, and the caller wanted it checked.",
            "`violations` in the result names the keyword. One tenant, or one model since a day? Compare the counts of "
            "`output_invalid` with those of completed requests.",
            "The caller simplifies the schema, sets `strict` in `text.format`, or asks again with `reask: 1`. If many "
            "callers have it since the same time, the model behind the gateway has changed: tell its support.",
            "responses-worker results --code output_invalid --json",
        ),
    ),
    ErrorCode.INCOMPLETE_MAX_TOKENS: ErrorClass(
        route=Route.ANSWER,
        retryable=False,
        message="The response ended at its token limit.",
        trace_status="ok",
        level=None,
        component="request",
        fault="none",
        customer_sees="a response cut at its token limit",
        runbook=RunbookEntry(
            "The response ended at its token limit. The part that was generated was delivered.",
            "`max_output_tokens` of the caller; reasoning tokens count towards it.",
            "The caller raises `max_output_tokens`; operators have nothing to do.",
            "responses-worker results --code incomplete_max_tokens",
        ),
    ),
}

STATES: Final[Mapping[State, FailureClass]] = {
    State.MESSAGE_UNREADABLE: FailureClass(
        level="warning",
        component="lane",
        fault="caller",
        customer_sees="nothing: the message is a dead letter",
        runbook=RunbookEntry(
            "A message is no request, often not even JSON. It became a dead letter.",
            "`reason` of the dead letter. Which producer pushes without Celery's JSON serializer?",
            "Have the producer repaired; drop or replay the dead letters.",
            "responses-worker dead list",
        ),
    ),
}
