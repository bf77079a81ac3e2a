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
)
from api_contracts.schemas import asyncapi, json_schemas
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


def request_page() -> str:
    return page(
        "The request",
        "A request is the one argument of the Celery task `responses.create`. "
        "[Enqueue a request](../use/enqueue.md) says how to send it; "
        "[its JSON Schema](contracts/request.schema.json) is for other languages.",
        "## Envelope",
        _fields(GenerationRequest),
        "Unknown keys of the envelope are ignored, with a warning in the worker's log: a caller may be newer "
        "than the workers.",
        "## Body",
        "The body is sent as the caller wrote it. No defaults are filled in. An unknown key is refused, and the "
        "message names the nearest known one. `extra_body` holds parameters that are newer than this contract.",
        _fields(ResponsesRequest, nested=True),
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
    """The JSON documents by file name, as `responses-worker contracts` writes them."""
    documents = {f"{name}.schema.json": schema for name, schema in json_schemas().items()}
    return {
        name: json.dumps(document, indent=2, ensure_ascii=False) + "\n"
        for name, document in (documents | {"asyncapi.json": asyncapi()}).items()
    }


def contracts_page() -> str:
    links = "\n".join(f"- [`{name}`](contracts/{name})" for name in contract_documents())
    return page(
        "JSON Schemas and AsyncAPI",
        "Other languages generate their types from these documents. `responses-worker contracts --out DIR` writes the "
        "same files. [How versions of the contract change](../upgrade.md#the-contract) is a page of its own.",
        links,
    )


def _sections(*sections: tuple[str, type[BaseModel]]) -> Iterable[str]:
    for title, model in sections:
        rules = _rules(model.model_json_schema(mode="serialization"))
        rows = [(f"`{name}`", _kind(rule), one_line(rule.get("description"))) for name, rule in rules]
        yield f"## {title}"
        yield table(("field", "type", "meaning"), rows)


def _fields(model: type[BaseModel], *, nested: bool = False) -> str:
    """The fields that a caller may write. A field left out and a `null` are the same."""
    schema = model.model_json_schema()
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
        return ", ".join(f"`{value}`" for value in rule["enum"])
    kind = f"array of {_kind(rule['items'])}s" if "items" in rule else str(rule.get("type", "any"))
    limits = [words.format(rule[key]) for key, words in _LIMITS.items() if key in rule]
    return ", ".join((kind, *limits))
