"""Why a request has no plain answer, in words that outlive gateways: a closed list of codes, and data."""

from enum import StrEnum

from pydantic import BaseModel, ConfigDict

from api_contracts.violations import Violation


class ErrorCode(StrEnum):
    """The closed list of reasons. Branch on it, never on a message. Each says what the caller should do.

    "Enqueue again" means: the same request, under the same or another id. `MappedError.retryable` tells
    whether that can help in this very case.
    """

    INVALID_REQUEST = "invalid_request"
    """Correct the request; `violations` says where, or `upstream` what the gateway objected to."""
    DUPLICATE_CONFLICT = "duplicate_conflict"
    """Choose another `request_id`: this one belongs to another body, whose request goes on untouched."""
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
    """Enqueue again, later or with a later deadline: it passed while the gateway was throttling."""
    UPSTREAM_OVERLOADED = "upstream_overloaded"
    """Enqueue again later: the gateway said it had too much to do."""
    UPSTREAM_ERROR = "upstream_error"
    """Enqueue again: the gateway failed for reasons of its own, on every attempt."""
    UPSTREAM_TIMEOUT = "upstream_timeout"
    """Enqueue again, perhaps with a longer `timeout` or less to generate; the call may have been billed."""
    UPSTREAM_UNREACHABLE = "upstream_unreachable"
    """Enqueue again: no connection to the gateway came about, so nothing was billed."""
    INVALID_RESPONSE = "invalid_response"
    """Enqueue again: the gateway's answer broke its contract; the call may have been billed."""
    INCOMPLETE_MAX_TOKENS = "incomplete_max_tokens"
    """Use the attached response as far as it goes, or ask anew with a larger `max_output_tokens`."""
    DEADLINE_EXCEEDED = "deadline_exceeded"
    """Ask anew if the answer is still of use; the last upstream error, if there was one, is attached."""
    CANCELLED = "cancelled"
    """Nothing: the request was revoked by its caller or an operator."""
    INTERNAL_ERROR = "internal_error"
    """Enqueue again, and tell the operators of the worker: this is a defect of ours."""


class UpstreamError(BaseModel):
    """What the gateway said, in its own words; texts are cut and cleaned by the worker."""

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
    """Why a request failed or its answer is incomplete."""

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
    """How the request breaks the contract; empty unless the code is `invalid_request`."""
