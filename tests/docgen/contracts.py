"""Pages for callers: the envelope, the body, the result, the error codes, Celery's surface and the JSON documents."""

import json
from collections.abc import Iterable, Iterator
from typing import Any, Final

from pydantic import BaseModel

from api_contracts import (
    CONTRACT_VERSION,
    Attempt,
    ErrorCode,
    GenerationRequest,
    GenerationResult,
    MappedError,
    ResponsesRequest,
    Timing,
    UpstreamError,
    contract,
)
from api_contracts.openai import OpenAIRequest
from api_contracts.schemas import documents, json_schemas
from docgen.celery_surface import CELERY_SURFACE
from docgen.markdown import member_docstrings, one_line, page, table
from worker.failures.classes import ERRORS

Json = dict[str, Any]

_LIMITS: Final = {
    "minimum": "at least {}",
    "exclusiveMinimum": "over {}",
    "maximum": "at most {}",
    "minItems": "at least {} items",
    "maxLength": "at most {} characters",
    "maxProperties": "at most {} pairs",
}


_DIFFERENCES: Final = """
- `background` must not be true: the worker waits for the answer and publishes it.
- An item of `input` whose `type` is newer than the schema passes.
- A message of the assistant may hold `output_text` and `refusal` parts without the ids of a whole answer.
- Items of an answer may be sent back as they came, nulls included.
- A function tool needs no `strict` and no `parameters`, an `input_image` no `detail`, and an `image_generation_call`
  only its id: OpenAI's guides leave them out.
- Bounds that the SDK states in prose hold: of `temperature`, `top_p`, `top_logprobs`, `max_output_tokens`, `metadata`.
- `model` may be missing only beside `prompt`, and `input` only beside `prompt`, `previous_response_id` or
  `conversation`.
"""


def request_page() -> str:
    return page(
        "The request",
        "A request is the one argument of the Celery task `responses.create`. "
        "[Enqueue a request](../use/enqueue.md) says how to send it; "
        "[its JSON Schema](contracts/request.schema.json) is for other languages.",
        "## Envelope",
        _fields(GenerationRequest.model_json_schema()),
        "Unknown keys of the envelope are ignored, with a warning in the worker's log: a caller may be newer "
        "than the workers.",
        "## Body",
        "The body is sent as the caller wrote it. No defaults are filled in. An unknown key is refused, and the "
        "message names the nearest known one. `extra_body` holds parameters that are newer than this contract.",
        _fields(ResponsesRequest.model_json_schema(), nested=True),
        "The workers of a fleet with `WORKER_CONTRACT=openai` take [the body as the OpenAI SDK writes it](openai.md).",
    )


def openai_page() -> str:
    return page(
        "The body as the OpenAI SDK writes it",
        "A fleet with `WORKER_CONTRACT=openai` takes what the OpenAI SDK can write, and sends it as it was written. "
        "A fleet without this setting takes [the gateway's own request](request.md). The envelope is the same.",
        "## Body",
        "An unknown key is refused, and the message names the nearest known one. `extra_body` holds parameters that "
        "are newer than this contract. Unknown keys further inside pass.",
        _fields(json_schemas(contract("openai"))["request"]["$defs"][OpenAIRequest.__name__]),
        "## Types",
        "The types are those of the OpenAI SDK. What it types as wrong is refused, and the message names the field. "
        "[The JSON Schema](contracts/openai/request.schema.json) has them all. It differs from the SDK here:",
        _DIFFERENCES,
    )


def result_page() -> str:
    return page(
        "The result",
        "One entry of the stream `responses:results` has the fields `request_id`, `tenant`, `outcome` and `result`. "
        "The field `result` is the JSON object below. "
        f"[Its JSON Schema](contracts/result.schema.json) is for other languages. This is contract {CONTRACT_VERSION}.",
        *_sections(
            ("Result", GenerationResult),
            ("Error", MappedError),
            ("The gateway's own error: `error.upstream`", UpstreamError),
            ("One attempt: `attempts`", Attempt),
            ("Times: `timing`", Timing),
        ),
    )


def errors_page() -> str:
    described = member_docstrings(ErrorCode)
    rows = [
        (f"[`{code}`](../runbook/{code}.md)", error.route, one_line(described[code.name]))
        for code, error in ERRORS.items()
    ]
    return page(
        "Error codes",
        "The list is closed. Branch on the code and never on the message. `retryable` says whether enqueueing the "
        "same request again can help. The route says what the worker does with such a failure: "
        "[Failures](../explanation/failures.md) explains it. Each code links to the page for operators.",
        table(("code", "route", "what the caller does"), rows),
    )


def celery_page() -> str:
    return page(
        "Celery features",
        "The worker is a Celery worker, and any Celery producer can send to it.",
        table(("of Celery", "works", "how"), CELERY_SURFACE),
    )


def contract_documents() -> dict[str, str]:
    """The JSON documents by file name, as `responses-worker contracts` writes them; of `openai`, in its directory."""
    profiles = {"": contract(), "openai/": contract("openai")}
    return {
        f"{folder}{name}": json.dumps(document, indent=2, ensure_ascii=False) + "\n"
        for folder, request in profiles.items()
        for name, document in documents(request).items()
    }


def contracts_page() -> str:
    links = "\n".join(f"- [`{name}`](contracts/{name})" for name in contract_documents())
    return page(
        "JSON Schemas and AsyncAPI",
        "Other languages generate their types from these documents. `responses-worker contracts --out DIR` writes the "
        "same files; with `--contract openai` those for [the body as the OpenAI SDK writes it](openai.md). "
        "[How versions of the contract change](../upgrade.md#the-contract) is a page of its own.",
        links,
    )


def _sections(*sections: tuple[str, type[BaseModel]]) -> Iterable[str]:
    for title, model in sections:
        rules = _rules(model.model_json_schema(mode="serialization"))
        rows = [(f"`{name}`", _kind(rule), one_line(rule.get("description"))) for name, rule in rules]
        yield f"## {title}"
        yield table(("field", "type", "meaning"), rows)


def _fields(schema: Json, *, nested: bool = False) -> str:
    """The fields that a caller may write."""
    rows = [
        (f"`{name}`", _kind(_written(rule)), "yes" if rule.get("needed") else "", one_line(rule.get("description")))
        for name, rule in _rules(schema, schema["$defs"] if nested else {})
    ]
    return table(("field", "type", "required", "meaning"), rows)


def _rules(schema: Json, definitions: Json | None = None, above: str = "") -> Iterator[tuple[str, Json]]:
    """Every property by its path, and below it the properties of the definitions that it refers to."""
    for name, rule in schema["properties"].items():
        yield f"{above}{name}", {**rule, "needed": name in schema.get("required", ())}
        reference = _written(rule.get("items", rule)).get("$ref", "").rpartition("/")[2]
        if definitions and "properties" in definitions.get(reference, {}):
            step = "[]." if "items" in rule else "."
            yield from _rules(definitions[reference], definitions, f"{above}{name}{step}")


def _written(rule: Json) -> Json:
    """The rule without the alternative `null`."""
    parts = [part for part in rule.get("anyOf", ()) if part.get("type") != "null"]
    return parts[0] if len(parts) == 1 else rule


def _kind(rule: Json) -> str:
    """A JSON Schema type in a few words."""
    if "anyOf" in rule:
        return " or ".join(dict.fromkeys(_kind(part) for part in rule["anyOf"]))
    if "$ref" in rule:
        return "error code" if rule["$ref"].endswith("/ErrorCode") else "object"
    if "enum" in rule:
        return ", ".join(f"`{value if isinstance(value, str) else json.dumps(value)}`" for value in rule["enum"])
    kind = f"array of {_kind(rule['items'])}s" if "items" in rule else str(rule.get("type", "any"))
    limits = [words.format(rule[key]) for key, words in _LIMITS.items() if key in rule]
    return ", ".join((kind, *limits))
