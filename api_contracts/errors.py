"""The error of a result: a closed list of codes that no gateway changes, and data."""

from enum import StrEnum

from pydantic import BaseModel, ConfigDict

from api_contracts.violations import Violation


class ErrorCode(StrEnum):
    """The closed list of codes. Branch on the code, never on a message. Each says what the caller should do.

    "Enqueue again" means: the same request, under the same or another id. `MappedError.retryable` says whether
    that can help in the case at hand. `worker.failures.classes` holds one row for each code.
    """

    INVALID_REQUEST = "invalid_request"
    """Correct the request; `violations` names the fields, or `upstream` quotes the gateway."""
    DUPLICATE_CONFLICT = "duplicate_conflict"
    """Choose another `request_id`: this one belongs to another body. The first request is not affected."""
    CONTEXT_LENGTH_EXCEEDED = "context_length_exceeded"
    """Shorten the input, or ask for fewer output tokens."""
    REQUEST_TOO_LARGE = "request_too_large"
    """Send less: the body is over the size limit, or its tokens can never fit the budget."""
    CONTENT_REJECTED = "content_rejected"
    """Change the content: a filter refused the input, or cut the output (then a response is attached)."""
    MODEL_UNAVAILABLE = "model_unavailable"
    """Enqueue again later if retryable; otherwise the gateway does not serve this model to this account."""
    AUTHENTICATION_FAILED = "authentication_failed"
    """Enqueue again once an operator has repaired the credential; nothing is wrong with the request."""
    PERMISSION_DENIED = "permission_denied"
    """Ask an operator: the credential may not do this, and asking again changes nothing."""
    QUOTA_EXHAUSTED = "quota_exhausted"
    """Enqueue again once the account has been paid; nothing is wrong with the request."""
    RATE_LIMITED = "rate_limited"
    """Enqueue again later, or with a later deadline: it passed while the gateway was throttling."""
    UPSTREAM_OVERLOADED = "upstream_overloaded"
    """Enqueue again later: the gateway said it had too much to do."""
    UPSTREAM_ERROR = "upstream_error"
    """Enqueue again: the gateway failed for reasons of its own, on every attempt."""
    UPSTREAM_TIMEOUT = "upstream_timeout"
    """Enqueue again, perhaps with a longer `timeout` or less to generate; the call may have been billed."""
    UPSTREAM_UNREACHABLE = "upstream_unreachable"
    """Enqueue again: no connection to the gateway could be opened, so nothing was billed."""
    INVALID_RESPONSE = "invalid_response"
    """Enqueue again: the gateway's answer broke its contract; the call may have been billed."""
    OUTPUT_INVALID = "output_invalid"
    """Use the attached response with care, or enqueue again: `check_output` was true, and the response's text or tool
    call breaks the schema that was asked for. `violations` names the place."""
    INCOMPLETE_MAX_TOKENS = "incomplete_max_tokens"
    """Use the attached part of the response, or ask again with a larger `max_output_tokens`."""
    DEADLINE_EXCEEDED = "deadline_exceeded"
    """Ask again if the answer is still useful; the last upstream error, if there was one, is attached."""
    CANCELLED = "cancelled"
    """Nothing: the request was revoked by its caller or an operator."""
    INTERNAL_ERROR = "internal_error"
    """Enqueue again, and tell the operators of the worker: this is a defect of ours."""


class UpstreamError(BaseModel):
    """The gateway's own error. The worker cuts its texts and removes keys."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    code: str | None = None
    """The gateway's `error.code`."""
    message: str | None = None
    """The gateway's `error.message`."""
    type: str | None = None
    """The gateway's `error.type`."""
    request_id: str | None = None
    """The gateway's id of the call, to quote to its support."""


class MappedError(BaseModel):
    """The reason for a failed request or an incomplete answer."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    code: ErrorCode
    """The reason, from a closed list."""
    message: str
    """One sentence for people. Never holds prompt text."""
    retryable: bool
    """Whether enqueueing the same request again can help."""
    http_status: int | None = None
    """The gateway's last HTTP status; null if no answer came."""
    upstream: UpstreamError | None = None
    """The gateway's last error; null if it reported none."""
    violations: list[Violation] = []
    """Breaches of the contract by the request, or of its schema by the output; empty unless the code is
    `invalid_request` or `output_invalid`."""
