"""The profile `openai`: the body as the OpenAI SDK writes it. `openai_shapes.json` holds the types of its fields.

Two things are refused that the SDK can write: `background`, because the worker waits for the answer, and a body that
asks nothing. Items of `input` of a type that is newer than the shapes pass.
"""

import json
import re
from collections.abc import Mapping
from functools import cache, partial
from importlib.resources import files
from typing import Annotated, Any, ClassVar, Final, Self, cast

from pydantic import (
    ConfigDict,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationError,
    model_validator,
)
from pydantic_core import CoreSchema, InitErrorDetails, core_schema

from api_contracts.envelope import Envelope
from api_contracts.fields import Omissible, tidy
from api_contracts.requests import SHAPED, RequestBody
from api_contracts.shapes import Shapes
from api_contracts.violations import WaysOut

Json = dict[str, Any]

_NAMES_A_MODEL: Final = ("model", "prompt")
_ASKS: Final = ("input", "prompt", "previous_response_id", "conversation")
"""The fields of which a body needs one."""

_INPUT_PARTS: Final = ("input_text", "input_image", "input_file")


def _item_kind(item: Mapping[str, Any]) -> object:
    """The meaning of an item of `input`: one with another `type` is that, the rest are messages or references."""
    kind = item.get("type")
    if kind not in (None, "message"):
        return kind
    if kind is None and "role" not in item and "id" in item:
        return "ItemReference"
    if item.get("role") != "assistant" or _holds_input(item.get("content")):
        return "Message"
    return "OutputMessage" if "id" in item or "status" in item else "AssistantMessage"


def _holds_input(content: object) -> bool:
    """Whether the content is a caller's own: text, or parts as users write them."""
    if not isinstance(content, list):
        return True
    parts = [cast("Json", part) for part in cast("list[object]", content) if isinstance(part, dict)]
    return all(part.get("type") in _INPUT_PARTS for part in parts)


@cache
def _shapes() -> Shapes:
    """The shapes of the fields, read when the first body is."""
    document = json.loads(files("api_contracts").joinpath("openai_shapes.json").read_bytes())
    return Shapes(document, {"InputItem": _item_kind})


class _Shaped:
    """The type of a field that the document of shapes describes under the field's own name."""

    def __get_pydantic_core_schema__(self, _source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(partial(_validated, str(handler.field_name)))

    def __get_pydantic_json_schema__(self, _schema: CoreSchema, _handler: GetJsonSchemaHandler) -> Json:
        return {SHAPED: True}


def _validated(field: str, value: object) -> Any:
    return _shapes().validate(field, value)


Shaped = Annotated[Any, _Shaped()]


def _rules(schema: Json) -> None:
    """The rules of `_asks_something`, in JSON Schema."""
    tidy(schema)
    schema["allOf"] = [{"anyOf": [{"required": [name]} for name in names]} for names in (_NAMES_A_MODEL, _ASKS)]


class OpenAIRequest(RequestBody):
    """The body of `POST /v1/responses` as the OpenAI SDK types it, and `extra_body` for parameters newer than that."""

    model_config = ConfigDict(json_schema_extra=_rules)

    WAYS_OUT: ClassVar[WaysOut] = (
        (
            re.compile(r"body\.background literal_error"),
            "must not be true: the worker waits for the answer and publishes it; leave it out",
        ),
    )

    model: Omissible[str] = None
    """The model that generates. Required unless `prompt` names a template, which has one."""
    input: Shaped = None
    """Text, or the items of the conversation, oldest first. Required unless something else says what to answer:
    `prompt`, `previous_response_id` or `conversation`."""
    instructions: Shaped = None
    """A system message in front of the conversation."""
    stream: Shaped = False
    """Whether the worker asks the gateway for server-sent events, and publishes deltas as they come."""
    max_output_tokens: Shaped = None
    """The most tokens to generate, thinking included. Set it tight: the rate budget reserves this many."""
    temperature: Shaped = None
    """Randomness of the output."""
    top_p: Shaped = None
    """Nucleus sampling: the share of probability that is sampled from."""
    text: Shaped = None
    """The form of the output, `json_schema` among them, and how much the model writes."""
    verbosity: Shaped = None
    """As `text.verbosity`, at the place where the SDK's `responses.parse` writes it."""
    reasoning: Shaped = None
    """The model's thinking before it writes."""
    tools: Shaped = None
    """The tools that the model may call."""
    tool_choice: Shaped = None
    """The tool, if any, that the model calls."""
    parallel_tool_calls: Shaped = None
    """Whether the model may call several tools at once."""
    max_tool_calls: Shaped = None
    """The most calls of built-in tools."""
    previous_response_id: Shaped = None
    """The stored response that this one continues."""
    conversation: Shaped = None
    """The stored conversation that this response belongs to."""
    prompt: Shaped = None
    """A stored template and its variables."""
    include: Shaped = None
    """Parts of the response beyond the usual, such as log probabilities."""
    top_logprobs: Shaped = None
    """The number of likely tokens to tell at each place."""
    truncation: Shaped = None
    """Whether the gateway may drop the beginning of an input that is too long."""
    context_management: Shaped = None
    """The sizes at which the gateway compacts the conversation."""
    store: Shaped = None
    """Whether the gateway keeps the response for later retrieval."""
    metadata: Shaped = None
    """Kept with the stored response; the envelope's `metadata` is echoed in the result instead."""
    service_tier: Shaped = None
    """The gateway's speed and price class."""
    prompt_cache_key: Shaped = None
    """Names similar requests, so that they share the gateway's prompt cache."""
    prompt_cache_options: Shaped = None
    """Content of the gateway's prompt cache, and its time there."""
    prompt_cache_retention: Shaped = None
    """The longest time in the prompt cache; older than `prompt_cache_options`."""
    stream_options: Shaped = None
    """Options of a stream; usage needs none, every result carries it."""
    image: Shaped = None
    """The gateway's treatment of images."""
    moderation: Shaped = None
    """The gateway's moderation of input and output."""
    access_programs: Shaped = None
    """Access programs of a special domain."""
    safety_identifier: Shaped = None
    """An identifier of the end user, for the gateway's rules of use."""
    user: Shaped = None
    """An identifier of the end user, stable and meaningless to others; older than `safety_identifier`."""
    background: Shaped = None
    """Must not be true: the worker waits for the answer and publishes it."""
    background_options: Shaped = None
    """Of background execution, which the worker does not use."""
    extra_body: Omissible[dict[str, Any]] = None
    """Parameters newer than this contract, merged into the body; may not name its keys or `background`."""

    @property
    def media(self) -> object:
        return [self.input, self.prompt]

    @property
    def holds_schema(self) -> bool:
        text: Json = self.text or {}
        form: Json = text.get("format") or {}
        return form.get("type") == "json_schema"

    @classmethod
    def shapes(cls) -> Shapes:
        """The types of the fields, as the SDK has them."""
        return _shapes()

    @model_validator(mode="after")
    def _asks_something(self) -> Self:
        needed = (_NAMES_A_MODEL, _ASKS)
        if missing := [names[0] for names in needed if self.model_fields_set.isdisjoint(names)]:
            details = [InitErrorDetails(type="missing", loc=(field,), input=None) for field in missing]
            raise ValidationError.from_exception_data(type(self).__name__, details)
        return self


class OpenAIGenerationRequest(Envelope):
    """The envelope: one request to `POST /v1/responses` and how it is to be carried.

    Unknown keys are ignored, because callers may be newer than workers. A field without a default value may
    also be `null`, which means the same as leaving it out.
    """

    model_config = ConfigDict(title="GenerationRequest")

    body: OpenAIRequest  # pyright: ignore[reportIncompatibleVariableOverride]  # frozen: it is only read
    """The body of `POST /v1/responses`, sent as written: no defaults are filled in."""
