"""The envelope: one request and how it is to be carried. `generation.py` says which body it holds."""

from collections.abc import Mapping
from itertools import islice
from typing import Annotated, Any, Final, Self, cast

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError

from api_contracts.fields import WHOLE, Name, RequestId, Timestamp, TraceParent
from api_contracts.limits import MAX_KEYS, MAX_METADATA, MAX_METADATA_CHARS
from api_contracts.queues import DEFAULT_TENANT
from api_contracts.requests import RequestBody
from api_contracts.violations import ContractViolation, Violation, printable, violations_of

_MAX_UNKNOWN_KEYS: Final = 16  # enough for a warning, and no way to flood a log


class Envelope(BaseModel):
    """The envelope: one request to `POST /v1/responses` and how it is to be carried.

    Unknown keys are ignored, because callers may be newer than workers. A field without a default value may
    also be `null`, which means the same as leaving it out.
    """

    model_config = ConfigDict(
        frozen=True, strict=True, extra="ignore", use_attribute_docstrings=True, hide_input_in_errors=True
    )

    body: RequestBody
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
    check_output: bool = False
    """Whether a completed answer must keep to what was asked for: its text to the schema of `text.format` or to JSON,
    the arguments of its tool calls to the `parameters` of the tools. Else the result is `output_invalid`."""
    reask: Annotated[int, Field(ge=0, le=1), WHOLE] = 0
    """Times that the model is asked again, with the checker's words, where `check_output` finds a fault. Each counts as
    an attempt."""
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
        body = cls.body_type()
        try:
            request = cls.model_validate(raw)
        except ValidationError as error:
            violations = violations_of(error, root="envelope", known=body.model_fields, ways_out=body.WAYS_OUT)
        else:
            request._remember(raw)  # noqa: SLF001 - of the class that this method belongs to
            return request
        raise ContractViolation(violations)  # outside of `except`: the values stay out of the traceback

    @classmethod
    def body_type(cls) -> type[RequestBody]:
        """The body of this contract."""
        return cast("type[RequestBody]", cls.model_fields["body"].annotation)

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
        if isinstance(raw, Envelope):  # parsed again, and remembering already
            return
        envelope = cast("dict[str, Any]", raw)
        if isinstance(envelope["body"], dict):
            self._written = envelope["body"]
        if unknown := envelope.keys() - Envelope.model_fields.keys():
            self._unknown_keys = tuple(printable(key) for key in islice(unknown, _MAX_UNKNOWN_KEYS))


def _overgrown(raw: object) -> Violation | None:
    """A validator reports every unknown key, so that objects with thousands of them are refused before it looks."""
    envelope = cast("dict[str, object]", raw) if isinstance(raw, dict) else {}
    for name in ("body", "metadata"):
        part = envelope.get(name)
        if isinstance(part, dict) and len(cast("dict[str, object]", part)) > MAX_KEYS:
            return Violation(field=name, message=f"{name} must have at most {MAX_KEYS} keys", type="too_long")
    return None
