"""The wire of `POST /v1/responses`: a strict request, and tolerant readings of what the gateway answers.

The request refuses what the gateway's OpenAPI document does not allow, so that a mistake costs no call. The
read models accept more than that document promises: unknown fields are kept, missing and null ones have
defaults, because an answer that was paid for is not thrown away over a field nobody needed.
"""

from typing import Annotated, Any, Final, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    model_validator,
)

from api_contracts.fields import WHOLE, Lenient, LooseNumber, LooseText, Omissible, TokenCount, WireModel
from api_contracts.violations import RefusedValue

Model = Literal["gpt-5.4-mini"]
MODELS: Final[tuple[str, ...]] = get_args(Model)
"""The models that requests may name. Add one to `Model`, nowhere else."""


class RequestPart(WireModel):
    """A part of a request: strict about what it knows, and passing on what it does not."""

    model_config = ConfigDict(strict=True)


class InputMessage(RequestPart):
    """One turn of the conversation."""

    role: Literal["user", "assistant", "system"]
    """The speaker."""
    content: str
    """The words."""


class TextFormat(RequestPart):
    """The form of the output text."""

    type: Omissible[Literal["text", "json_object"]] = None
    """Plain text, or one JSON object."""


class TextOptions(RequestPart):
    """The style of the model's writing."""

    format: Omissible[TextFormat] = None
    """The form of the output."""
    verbosity: Omissible[Literal["low", "medium", "high"]] = None
    """Length of the model's writing; the gateway's default is medium."""


class ReasoningOptions(RequestPart):
    """The model's thinking before it writes."""

    effort: Omissible[Literal["none", "low", "medium", "high", "xhigh"]] = None
    """Amount of the model's thinking; the gateway's default is none."""
    summary: Omissible[Literal["auto", "concise", "detailed"]] = None
    """Whether, and how fully, the thinking is summarised."""


def _beyond_the_contract(extra: dict[str, Any]) -> dict[str, Any]:
    reserved = sorted(extra.keys() & (ResponsesRequest.model_fields.keys() | {"background"}))
    if "background" in reserved:
        raise RefusedValue("may not name background; the worker waits for the answer and publishes it")
    if reserved:
        raise RefusedValue(f"may not name {', '.join(reserved)}; it is for parameters newer than the contract")
    return extra


class ResponsesRequest(RequestPart):
    """The body of `POST /v1/responses`, and `extra_body` for parameters newer than this contract."""

    model_config = ConfigDict(extra="forbid")

    model: Annotated[Model, WithJsonSchema({"type": "string", "enum": list(MODELS)})]
    """The model that generates."""
    input: Annotated[list[InputMessage], Field(min_length=1, fail_fast=True)]
    """The conversation so far, oldest turn first."""
    stream: bool = False
    """Whether the worker asks the gateway for server-sent events, and publishes deltas as they come."""
    top_p: Omissible[Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]] = None
    """Nucleus sampling: the share of probability that is sampled from."""
    max_output_tokens: Omissible[Annotated[int, Field(ge=1), WHOLE]] = None
    """The most tokens to generate, thinking included. Set it tight: the rate budget reserves this many."""
    text: Omissible[TextOptions] = None
    """The style of the model's writing."""
    reasoning: Omissible[ReasoningOptions] = None
    """The model's thinking before it writes."""
    tools: Omissible[Annotated[list[dict[str, Any]], Field(fail_fast=True)]] = None
    """The tools that the model may call."""
    tool_choice: Omissible[str] = None
    """The tool, if any, that the model calls."""
    store: bool = True
    """Whether the gateway keeps the response for later retrieval."""
    user: Omissible[str] = None
    """An identifier of the end user, stable and meaningless to others."""
    extra_body: Omissible[Annotated[dict[str, Any], AfterValidator(_beyond_the_contract)]] = None
    """Parameters newer than this contract, merged into the body; may not name its keys or `background`."""


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
