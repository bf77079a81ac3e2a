"""The envelope that callers enqueue, and the one result that consumers read.

Producers need none of this: a JSON object in a Celery message is enough. These models say what is in it.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from api_contracts.anyfast import ResponsesRequest
from api_contracts.envelope import Envelope
from api_contracts.errors import ErrorCode, MappedError, UpstreamError
from api_contracts.fields import Timestamp
from api_contracts.responses import ResponseObject
from api_contracts.violations import ContractViolation, Violation, violations_of

__all__ = [
    "CONTRACT_VERSION",
    "Attempt",
    "ContractViolation",
    "ErrorCode",
    "GenerationRequest",
    "GenerationResult",
    "MappedError",
    "Timing",
    "UpstreamError",
    "Violation",
]

CONTRACT_VERSION: Final = "2.0"
"""Of envelope and result: the second number grows with new fields, the first with all else, new codes too."""


class GenerationRequest(Envelope):
    """The envelope: one request to `POST /v1/responses` and how it is to be carried.

    Unknown keys are ignored, because callers may be newer than workers. A field without a default value may
    also be `null`, which means the same as leaving it out.
    """

    body: ResponsesRequest  # pyright: ignore[reportIncompatibleVariableOverride]  # frozen: it is only read
    """The body of `POST /v1/responses`, sent as written: no defaults are filled in."""


class Attempt(BaseModel):
    """One call of the gateway; it is recorded before the call, so that a killed one is in the history."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    number: int
    """Counted from 1."""
    started_at: Timestamp
    """When the call was about to start."""
    duration_ms: int | None = None
    """Duration of the call; null if its end was not seen."""
    upstream: str
    """The name of the upstream that was called."""
    outcome: Literal["completed", "incomplete", "failed", "throttled", "interrupted", "started"]
    """The attempt's end; `started` if nothing more is known, as after a kill."""
    http_status: int | None = None
    """The gateway's HTTP status; null if no answer came."""
    code: ErrorCode | None = None
    """The reason that it did not complete."""
    upstream_request_id: str | None = None
    """The gateway's id of the call, to quote to its support; a hash (`#`) of one that quotes the request."""
    waited_ms: int = 0
    """Time that the attempt waited for the rate budget before it started."""
    maybe_billed: bool = False
    """Whether the gateway may have run, and charged for, a call whose answer was lost."""


class Timing(BaseModel):
    """The time between enqueueing and answer, in its parts."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    enqueued_at: Timestamp
    """When the request was enqueued."""
    enqueued_at_source: Literal["caller", "worker"]
    """The source of `enqueued_at`: the caller, or the worker that first saw the message."""
    claimed_at: Timestamp
    """When a worker took the request up, the last time it did."""
    finished_at: Timestamp
    """When the outcome was known."""
    queue_ms: int
    """Waiting in the lane."""
    throttle_ms: int
    """Waiting for the rate budget."""
    upstream_ms: int
    """Calling the gateway, all attempts together."""
    total_ms: int
    """From `enqueued_at` to `finished_at`."""


class GenerationResult(BaseModel):
    """The one answer to a request. Fields that are newer than this reader are ignored."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True, hide_input_in_errors=True)

    contract_version: str
    """The version of the contract that the worker spoke, such as `1.0`."""
    request_id: str
    """The caller's idempotency key, or the Celery task id if it gave none."""
    tenant: str
    """On whose behalf."""
    lane: str
    """The lane on which the request arrived."""
    outcome: Literal["completed", "incomplete", "failed"]
    """`completed`: a response; `incomplete`: a response and an error; `failed`: an error."""
    response: ResponseObject | None = None
    """The gateway's answer."""
    error: MappedError | None = None
    """The reason that there is no complete answer; null if and only if the outcome is `completed`."""
    attempts: list[Attempt] = []
    """The calls of the gateway, oldest first."""
    timing: Timing
    """The parts of the time."""
    metadata: dict[str, str] = {}
    """The request's, echoed."""
    trace_id: str | None = None
    """The trace that this request belongs to, 32 hexadecimal digits."""
    cost_usd: float | None = None
    """The cost of the answer's tokens in USD, where the workers are told the price of its model."""

    @classmethod
    def from_entry(cls, fields: Mapping[Any, Any]) -> Self:
        """The result that an entry of a result stream holds; its keys and values may be bytes or str.

        Raises `ContractViolation`, which repeats no output, if the entry is not of this contract.
        """
        raw = fields.get("result", fields.get(b"result", ""))
        try:
            return cls.model_validate_json(raw)
        except ValidationError as error:
            violations = violations_of(error, root="result")
        raise ContractViolation(violations)
