"""Tolerant readings of what the gateway answers to `POST /v1/responses`.

They accept more than the gateway's document promises: unknown fields are kept, missing and null ones have defaults,
because an answer that was paid for is not thrown away over a field nobody needed.
"""

from typing import Annotated, Any, Final, Self

from pydantic import BeforeValidator, Field, model_validator

from api_contracts.fields import Lenient, LooseNumber, LooseText, TokenCount, WireModel
from api_contracts.violations import RefusedValue


def _message_only(value: object) -> object:
    return {"message": value} if isinstance(value, str) else value


class InputTokensDetails(WireModel):
    cached_tokens: TokenCount = 0
    """Input tokens that came from the prompt cache."""


class OutputTokensDetails(WireModel):
    reasoning_tokens: TokenCount = 0
    """Output tokens that were spent on thinking."""


def _sum(seen: dict[str, Any]) -> int:
    # pydantic before 2.12 asks for defaults even when a count before was refused and is missing here.
    return seen.get("input_tokens", 0) + seen.get("output_tokens", 0)


class Usage(WireModel):
    """Tokens that a call used; a count that the gateway left out is 0, a missing total is the sum."""

    input_tokens: TokenCount = 0
    input_tokens_details: Lenient[InputTokensDetails] = None
    output_tokens: TokenCount = 0
    output_tokens_details: Lenient[OutputTokensDetails] = None
    total_tokens: TokenCount = Field(default_factory=_sum)

    @property
    def cached_tokens(self) -> int:
        return self.input_tokens_details.cached_tokens if self.input_tokens_details else 0

    @property
    def reasoning_tokens(self) -> int:
        return self.output_tokens_details.reasoning_tokens if self.output_tokens_details else 0


class ErrorDetail(WireModel):
    """The gateway's description of an error; gateways put any JSON into `code`, we read text and numbers."""

    code: LooseText = None
    message: LooseText = None
    type: LooseText = None
    param: LooseText = None


class ErrorBody(WireModel):
    """The body of an answer that is not 2xx, and of some that are; `{"error": "text"}` is read too."""

    error: Annotated[ErrorDetail | None, BeforeValidator(_message_only)] = None


class IncompleteDetails(WireModel):
    reason: LooseText = None
    """`max_output_tokens` or `content_filter`."""


class OutputContent(WireModel):
    """A part of an output item; `text` is set where `type` is `output_text`."""

    type: LooseText = None
    text: LooseText = None
    annotations: Lenient[list[dict[str, Any]]] = None


class OutputItem(WireModel):
    """A message, a tool call, or a summary of thinking; what only that `type` has is kept as extra."""

    id: LooseText = None
    type: LooseText = None
    role: LooseText = None
    status: LooseText = None
    content: list[OutputContent] | None = None


class ResponseObject(WireModel):
    """The gateway's answer. What this cannot read is no answer, and is never attached to a result.

    The gateway's document requires more fields than this; here only `status`, and of a completed response
    its `output`, must be there.
    """

    id: LooseText = None
    object: LooseText = None
    created_at: LooseNumber = None
    """Unix time, seconds."""
    completed_at: LooseNumber = None
    """Unix time, seconds."""
    model: LooseText = None
    status: str
    """`completed` or `incomplete`; also seen: `failed`, `in_progress`, `queued`, `cancelled`."""
    output: list[OutputItem] = Field(default_factory=list[OutputItem])
    usage: Lenient[Usage] = None
    """Null if the gateway did not say, or not in a way that adds up."""
    error: Annotated[Lenient[ErrorDetail], BeforeValidator(_message_only)] = None
    incomplete_details: Lenient[IncompleteDetails] = None

    @model_validator(mode="after")
    def _completed_has_output(self) -> Self:
        if self.status == "completed" and "output" not in self.model_fields_set:
            raise RefusedValue("is completed and must have its output")
        return self

    @property
    def output_text(self) -> str:
        """The text of all messages, in order; empty if there is none."""
        parts = (part for item in self.output for part in item.content or ())
        return "".join(part.text or "" for part in parts if part.type == "output_text")


TERMINAL_EVENTS: Final = frozenset({"response.completed", "response.incomplete", "response.failed", "error"})
"""After one of these a stream says nothing more; a stream that ends without one was cut short."""


class StreamEvent(WireModel):
    """One server-sent event of a streamed response; which fields it has depends on `type`."""

    type: str
    sequence_number: Lenient[int] = None
    response: Lenient[ResponseObject] = None
    """The response so far, in `response.created` and the like, and whole in the terminal events."""
    item_id: LooseText = None
    output_index: Lenient[int] = None
    content_index: Lenient[int] = None
    delta: LooseText = None
    """The next piece of text, in `response.output_text.delta` and the like."""
    code: LooseText = None
    message: LooseText = None
    param: LooseText = None
    """With `code` and `message`: an `error` event as documented. Some gateways nest them in `error`."""
    error: Annotated[ErrorDetail | None, BeforeValidator(_message_only)] = None

    @property
    def is_terminal(self) -> bool:
        return self.type in TERMINAL_EVENTS
