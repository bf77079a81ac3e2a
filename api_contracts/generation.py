"""The envelope that callers enqueue, and the one result that consumers read.

Producers need none of this: a JSON object in a Celery message is enough. These models say what is in it.
"""

from collections.abc import Mapping
from itertools import islice
from typing import Annotated, Any, Final, Literal, Self, cast

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError

from api_contracts.errors import ErrorCode, MappedError, UpstreamError
from api_contracts.fields import WHOLE, Name, RequestId, Timestamp, TraceParent
from api_contracts.limits import MAX_KEYS, MAX_METADATA, MAX_METADATA_CHARS
from api_contracts.queues import DEFAULT_TENANT
from api_contracts.responses import ResponseObject, ResponsesRequest
from api_contracts.violations import ContractViolation, Violation, printable, violations_of

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

CONTRACT_VERSION: Final = "1.0"
"""Of envelope and result: the second number grows with new fields, the first with all else, new codes too."""

_MAX_UNKNOWN_KEYS: Final = 16  # enough for a warning, and no way to flood a log


class GenerationRequest(BaseModel):
    """The envelope: one request to `POST /v1/responses` and how it is to be carried.

    Unknown keys are ignored, because callers may be newer than workers. A field without a default value may
    also be `null`, which means the same as leaving it out.
    """

    model_config = ConfigDict(
        frozen=True, strict=True, extra="ignore", use_attribute_docstrings=True, hide_input_in_errors=True
    )

    body: ResponsesRequest
    """The body of `POST /v1/responses`, sent as written: no defaults are filled in."""
    request_id: RequestId | None = None
    """The caller's idempotency key, unique per tenant. Default: the id of the Celery task."""
    tenant: Name = DEFAULT_TENANT
    """On whose behalf; scopes `request_id`, and appears in logs and usage."""
    reply_to: Name | None = None
    """Publishes the result to the stream `responses:results:<reply_to>` instead of `responses:results`."""
    enqueued_at: Timestamp | None = None
    """When the caller enqueued this, RFC 3339. Default: when a worker first saw it."""
    deadline: Timestamp | None = None
    """When the answer becomes useless, RFC 3339. Default: the lane's. More than 7 days from now is refused,
    by the worker, whose clock decides."""
    timeout: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Seconds that one call of the gateway may take, in all. Default: the worker's setting, 600."""
    max_attempts: Annotated[int, Field(ge=1, le=20), WHOLE] | None = None
    """Calls of the gateway that may fail; throttling spends none. Default: the worker's setting, 5."""
    metadata: Annotated[
        dict[str, Annotated[str, Field(max_length=MAX_METADATA_CHARS)]], Field(max_length=MAX_METADATA)
    ] = {}
    """Echoed in the result and never interpreted."""
    traceparent: TraceParent | None = None
    """W3C trace context; joins the caller's trace."""

    _written: Mapping[str, Any] | None = PrivateAttr(default=None)
    _unknown_keys: tuple[str, ...] = PrivateAttr(default=())

    @classmethod
    def parse(cls, raw: object) -> Self:
        """The request that decoded JSON holds, or `ContractViolation`, which repeats no value of it.

        Fields of violations are paths such as `body.input.0.role`, or `envelope` for the whole.
        Of `input` and `tools` only the first faulty entry is reported, so that a large bad body stays cheap.
        """
        if overgrown := _overgrown(raw):
            raise ContractViolation((overgrown,))
        try:
            request = cls.model_validate(raw)
        except ValidationError as error:
            violations = violations_of(error, root="envelope", known=ResponsesRequest.model_fields)
        else:
            request._remember(raw)  # noqa: SLF001 - of the class that this method belongs to
            return request
        raise ContractViolation(violations)  # outside of `except`: the values stay out of the traceback

    def wire_body(self) -> dict[str, Any]:
        """The body as it goes to the gateway: what the caller wrote, in that order, `extra_body` merged in.

        Of a request that was built in code rather than parsed: the fields that were set.
        """
        written = self._written
        body = self.body.model_dump(mode="json", exclude_unset=True) if written is None else dict(written)
        extra: dict[str, Any] = body.pop("extra_body", {})
        return body | extra

    @property
    def unknown_keys(self) -> tuple[str, ...]:
        """Keys of the envelope that were ignored, to warn about: at most 16, each cut to 64 characters."""
        return self._unknown_keys

    def _remember(self, raw: object) -> None:
        if isinstance(raw, GenerationRequest):  # parsed again, and remembering already
            return
        envelope = cast("dict[str, Any]", raw)
        if isinstance(envelope["body"], dict):
            self._written = envelope["body"]
        if unknown := envelope.keys() - GenerationRequest.model_fields.keys():
            self._unknown_keys = tuple(printable(key) for key in islice(unknown, _MAX_UNKNOWN_KEYS))


def _overgrown(raw: object) -> Violation | None:
    """A validator reports every unknown key, so that objects with thousands of them are refused before it looks."""
    envelope = cast("dict[str, object]", raw) if isinstance(raw, dict) else {}
    for name in ("body", "metadata"):
        part = envelope.get(name)
        if isinstance(part, dict) and len(cast("dict[str, object]", part)) > MAX_KEYS:
            return Violation(field=name, message=f"{name} must have at most {MAX_KEYS} keys", type="too_long")
    return None


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
    """The gateway's id of the call, to quote to its support."""
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
