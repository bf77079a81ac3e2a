"""The profile `anyfast`: the body exactly as the gateway's OpenAPI document allows it, and unknown keys refused."""

import re
from typing import Annotated, Any, ClassVar, Final, Literal, get_args

from pydantic import Field, WithJsonSchema

from api_contracts.fields import WHOLE, Omissible
from api_contracts.requests import RequestBody, RequestPart
from api_contracts.violations import WaysOut

Model = Literal["gpt-5.4-mini"]
MODELS: Final[tuple[str, ...]] = get_args(Model)
"""The models that requests may name where no setting says more."""
_ENUM: Final = WithJsonSchema({"type": "string", "enum": list(MODELS)})


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


_WAYS_OUT: Final[WaysOut] = (
    (
        re.compile(r"body\.stream_options extra_forbidden"),
        "is not needed: every result carries the usage, streamed or not; leave it out",
    ),
    (
        re.compile(r"body\.background extra_forbidden"),
        "is not needed: the worker waits for the answer and publishes it; leave it out",
    ),
    (
        re.compile(r"body\.input\.\d+\.content string_type"),
        "must be a string; of content parts, join the text of those of type input_text",
    ),
    (
        re.compile(r"body\.text\.format\.type literal_error"),
        "must be 'text' or 'json_object'; for json_schema, ask for json_object and write the schema into a message",
    ),
    (re.compile(r"body\.input list_type"), "must be an array of messages such as {role: user, content: text}"),
)


class ResponsesRequest(RequestBody):
    """The body of `POST /v1/responses`, and `extra_body` for parameters newer than this contract."""

    WAYS_OUT: ClassVar[WaysOut] = _WAYS_OUT

    model: Annotated[Model, _ENUM]  # pyright: ignore[reportIncompatibleVariableOverride]  # frozen: it is only read
    """The model that generates."""
    input: Annotated[list[InputMessage], Field(min_length=1, fail_fast=True)]
    """The conversation so far, oldest turn first."""
    stream: bool = False  # pyright: ignore[reportIncompatibleVariableOverride]  # frozen: it is only read
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
    extra_body: Omissible[dict[str, Any]] = None
    """Parameters newer than this contract, merged into the body; may not name its keys or `background`."""
