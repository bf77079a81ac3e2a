"""The request body accepts exactly what the gateway's OpenAPI document accepts, save two chosen differences.

The differences: unknown top-level keys are refused, and `extra_body` exists. Everything else is compared with
a JSON Schema validator, over bodies generated from the document's schema and over mutations of them.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any, Final, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import BaseModel
from support.examples import examples
from support.mutations import ALMOST, mutated

from api_contracts import (
    Attempt,
    ContractViolation,
    GenerationRequest,
    GenerationResult,
    MappedError,
    ResponsesRequest,
    Timing,
    UpstreamError,
    Violation,
)

Json = dict[str, Any]

SEED: Final[Json] = json.loads((Path(__file__).parents[1] / "data" / "seed_request_schema.json").read_text())
"""The request body of the document, without its prose."""

VALIDATOR: Any = Draft202012Validator(SEED)

EXAMPLES = settings(max_examples=examples(600), deadline=None, derandomize=True, database=None)

NEIGHBOURS: Final = (*SEED["properties"], "role", "content", "format", "type", "effort", "temperature")


def conforming(schema: Json) -> st.SearchStrategy[Any]:
    """Values that a schema of this document's vocabulary accepts, open objects with unknown keys included."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if schema["type"] == "object":
        return conforming_object(schema, unknown=st.dictionaries(st.text("xyz"), ALMOST, max_size=1))
    if schema["type"] == "array":
        return st.lists(conforming(schema["items"]), min_size=schema.get("minItems", 0), max_size=3)
    return {
        "integer": st.integers(1) | st.integers(1, 2**60).map(float),
        "number": st.sampled_from([0, 1]) | st.floats(0, 1),
        "boolean": st.booleans(),
        "string": st.text(max_size=8),
    }[schema["type"]]


def conforming_object(schema: Json, unknown: st.SearchStrategy[Json]) -> st.SearchStrategy[Json]:
    fields = {name: conforming(field) for name, field in schema.get("properties", {}).items()}
    required = {name: fields.pop(name) for name in schema.get("required", ())}
    known = st.fixed_dictionaries(required, optional=fields)
    return st.tuples(unknown, known).map(lambda parts: parts[0] | parts[1])


VALID_BODIES: Final = conforming_object(SEED, unknown=st.just({}))


def violations(body: Json) -> tuple[Violation, ...]:
    try:
        GenerationRequest.parse({"body": body})
    except ContractViolation as refused:
        return refused.violations
    return ()


@settings(EXAMPLES, max_examples=examples(300))
@given(body=VALID_BODIES)
def test_what_the_gateway_documents_is_accepted(body: Json) -> None:
    """Every body that the document's schema allows passes, and goes out as it came in."""
    assert VALIDATOR.is_valid(body)
    assert violations(body) == ()
    assert json.dumps(GenerationRequest.parse({"body": body}).wire_body()) == json.dumps(body)


def test_mutations_are_judged_as_json_schema_judges_them() -> None:
    """Accepted by us if and only if by the schema, neither verdict being rare, and refusals always explained.

    `is not valid` is the empty phrase that stands in for a kind of mistake that has no phrase of its own.
    """
    verdicts: Counter[str] = Counter()

    @EXAMPLES
    @given(body=mutated(VALID_BODIES, NEIGHBOURS))
    def judge(body: Json) -> None:
        found = violations(body)
        if body.keys() <= SEED["properties"].keys():
            assert (found == ()) == VALIDATOR.is_valid(body), found
            verdicts["refused" if found else "accepted"] += 1
        else:
            assert found
        assert [violation.message for violation in found if "is not valid" in violation.message] == []

    judge()
    assert min(verdicts["accepted"], verdicts["refused"]) > examples(50)


def constraints(schema: object, definitions: Json) -> Any:
    """The schema without prose: references followed; titles, descriptions and open objects left out."""
    if isinstance(schema, list):
        return [constraints(entry, definitions) for entry in cast("list[object]", schema)]
    if not isinstance(schema, dict):
        return schema
    known = cast("Json", schema)
    if reference := known.get("$ref"):
        return constraints(definitions[reference.removeprefix("#/$defs/")], definitions)
    return {
        key: constraints(value, definitions)
        for key, value in known.items()
        if key not in {"title", "description", "$defs"} and (key, value) != ("additionalProperties", True)
    }


def test_the_exported_schema_equals_the_document() -> None:
    """Other languages generate clients from it: the same properties, types, bounds, enums and defaults."""
    exported = ResponsesRequest.model_json_schema()
    ours = constraints(exported, exported["$defs"])

    assert ours.pop("additionalProperties") is False
    assert ours["properties"].pop("extra_body") == {"type": "object"}
    assert ours == SEED


@pytest.mark.parametrize(
    "model",
    [
        GenerationRequest,
        ResponsesRequest,
        GenerationResult,
        Attempt,
        Timing,
        MappedError,
        UpstreamError,
        Violation,
    ],
)
def test_every_field_is_described_in_the_exported_schema(model: type[BaseModel]) -> None:
    """A reader in another language sees the field docstrings, in both directions of the wire."""
    for schema in (model.model_json_schema(), model.model_json_schema(mode="serialization")):
        for name, field in schema["properties"].items():
            described = schema["$defs"][field["$ref"].rpartition("/")[2]] if "$ref" in field else field
            assert described.get("description"), name
