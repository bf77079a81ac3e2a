"""The profile `openai`: what the SDK's types allow passes as written, and what they do not is refused at its place."""

import json
from collections import Counter
from typing import Any, Final

import jsonschema_rs
import pytest
from docgen.openai_shapes import FILE, rendered
from hypothesis import given, settings
from hypothesis import strategies as st
from support.examples import examples
from support.mutations import ALMOST, mutated
from support.sdk_calls import Call, recorded
from support.sdk_items import every_call

from api_contracts import ContractViolation, Violation, contract
from api_contracts.openai import OpenAIRequest
from api_contracts.schemas import json_schemas

Json = dict[str, Any]

OPENAI: Final = contract("openai")
SCHEMA: Final[Json] = json_schemas(OPENAI)["request"]
DEFINITIONS: Final[Json] = SCHEMA["$defs"]
JUDGE: Final = jsonschema_rs.Draft202012Validator(SCHEMA)
"""An independent reading of the published schema."""
ASKED: Final[Json] = {"model": "gpt-5.4-mini", "input": "Hello!"}
MESSAGE: Final[Json] = {"role": "user", "content": "x"}
EXAMPLES: Final = settings(max_examples=examples(100), deadline=None, derandomize=True, database=None)


def violations(body: Json) -> tuple[Violation, ...]:
    try:
        OPENAI.parse({"body": body})
    except ContractViolation as refused:
        return refused.violations
    return ()


def test_the_shapes_are_those_of_the_sdk() -> None:
    """`PYTHONPATH=tests python -m docgen.openai_shapes` writes them anew after an update of the SDK."""
    assert FILE.read_text(encoding="utf-8") == rendered()


def test_every_field_of_the_shapes_is_a_field_of_the_body_and_described() -> None:
    properties = DEFINITIONS[OpenAIRequest.__name__]["properties"]

    assert properties.keys() - {"model", "extra_body"} == OpenAIRequest.shapes().fields.keys()
    assert [name for name, field in properties.items() if not field.get("description")] == []


@pytest.mark.parametrize("call", every_call().values(), ids=every_call().keys())
def test_what_the_sdk_writes_goes_out_byte_for_byte(call: Call) -> None:
    bodies = recorded(call)

    assert bodies
    for written in bodies:
        sent = OPENAI.parse({"body": json.loads(written)}).wire_body()
        assert json.dumps(sent, ensure_ascii=False, separators=(",", ":")).encode() == written


BAD: Final[list[tuple[Json, str]]] = [
    ({"input": 5}, "body.input must be a string or an array"),
    ({"input": None}, "body.input must be a string or an array"),
    ({"input": ["x"]}, "body.input.0 must be an object"),
    ({"input": [{}]}, "body.input.0.content is required"),
    ({"input": [{"role": "user"}]}, "body.input.0.content is required"),
    ({"input": [{"content": "x"}]}, "body.input.0.role is required"),
    ({"input": [{"role": "tool", "content": "x"}]}, "body.input.0.role must be 'user', 'assistant', 'system' or"),
    ({"input": [MESSAGE, {"type": 7}]}, "body.input.1.type must be a string"),
    ({"input": [{"type": "function_call", "call_id": "c", "name": "f"}]}, "body.input.0.arguments is required"),
    ({"input": [{"type": "function_call_output", "output": 21}]}, "body.input.0.output must be a string or an array"),
    ({"input": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]}, "body.input.0.content.0.type must be"),
    ({"input": [{"role": "user", "content": [{"text": "x"}]}]}, "body.input.0.content.0.type is required"),
    ({"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "body.input.0.content.0.text is required"),
    (
        {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": {"url": "u"}}]}]},
        "body.input.0.content.0.image_url must be a string",
    ),
    (
        {"input": [{"role": "user", "content": [{"type": "output_text", "text": "x"}]}]},
        "body.input.0.content.0.type must be 'input_text', 'input_image' or 'input_file'",
    ),
    (
        {"input": [{"id": "m", "role": "assistant", "content": [{"type": "output_text", "text": "x"}]}]},
        "body.input.0.content.0.annotations is required",
    ),
    ({"tools": {}}, "body.tools must be an array"),
    ({"tools": [{"type": "quantum"}]}, "body.tools.0.type must be 'function', 'file_search',"),
    ({"tools": [{"name": "f"}]}, "body.tools.0.type is required"),
    ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "body.tools.0.name is required"),
    ({"tools": [{"type": "function", "name": "f", "parameters": "x"}]}, "body.tools.0.parameters must be an object"),
    ({"tools": [{"type": "mcp", "server_label": "w", "require_approval": 1}]}, "body.tools.0.require_approval must be"),
    ({"tool_choice": "any"}, "body.tool_choice must be 'none', 'auto' or 'required'"),
    ({"tool_choice": {"type": "function"}}, "body.tool_choice.name is required"),
    ({"text": {"format": {"type": "xml"}}}, "body.text.format.type must be 'text', 'json_schema' or 'json_object'"),
    ({"text": {"format": {"type": "json_schema", "schema": {}}}}, "body.text.format.name is required"),
    ({"reasoning": {"effort": "huge"}}, "body.reasoning.effort must be 'none', 'minimal',"),
    ({"temperature": "hot"}, "body.temperature must be a number"),
    ({"temperature": 2.5}, "body.temperature must be at most 2"),
    ({"temperature": float("nan")}, "body.temperature must be a finite number"),
    ({"temperature": True}, "body.temperature must be a number"),
    ({"top_logprobs": 21}, "body.top_logprobs must be at most 20"),
    ({"max_output_tokens": 1.5}, "body.max_output_tokens must be an integer"),
    ({"max_output_tokens": 0}, "body.max_output_tokens must be at least 1"),
    ({"metadata": {"a": 1}}, "body.metadata.a must be a string"),
    ({"metadata": {str(key): "" for key in range(17)}}, "body.metadata must have at most 16 entries"),
    ({"include": ["everything"]}, "body.include.0 must be 'file_search_call.results',"),
    ({"truncation": "maybe"}, "body.truncation must be 'auto' or 'disabled'"),
    ({"service_tier": "gold"}, "body.service_tier must be 'auto',"),
    ({"stream": 1}, "body.stream must be true or false"),
    ({"stream_options": {"include_obfuscation": "no"}}, "body.stream_options.include_obfuscation must be true or"),
    ({"conversation": {}}, "body.conversation.id is required"),
    ({"user": None}, "body.user must be a string"),
    ({"model": "gpt-4"}, "body.model must be 'gpt-5.4-mini'"),
    ({"background": True}, "body.background must not be true: the worker waits for the answer and publishes it"),
    ({"background": 0}, "body.background must not be true"),  # equals false in Python only
    ({"tempreature": 1}, "body.tempreature is not a known name; did you mean temperature?"),
    ({"extra_body": {"temperature": 1}}, "body.extra_body may not name temperature"),
    ({"extra_body": {"background": True}}, "body.extra_body may not name background"),
]


@pytest.mark.parametrize(("change", "said"), BAD)
def test_what_the_sdk_types_as_wrong_is_refused_at_its_place(change: Json, said: str) -> None:
    first, *_ = violations(ASKED | change)

    assert first.message.startswith(said)
    assert "\0" not in first.field


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"input": "x"}, "body.model"),
        ({"model": "gpt-5.4-mini"}, "body.input"),
        ({"prompt": {"id": "p"}}, None),
        ({"model": "gpt-5.4-mini", "previous_response_id": "r"}, None),
        ({"model": "gpt-5.4-mini", "conversation": "c"}, None),
    ],
)
def test_a_body_names_a_model_and_asks_something(body: Json, field: str | None) -> None:
    assert [violation.field for violation in violations(body)] == ([field] if field else [])


def test_models_are_those_that_the_fleet_serves() -> None:
    served = contract("openai", ["gpt-5.5", "ft:gpt-5.4-mini:acme"])

    assert served.parse({"body": ASKED | {"model": "gpt-5.5"}}).body.model == "gpt-5.5"
    with pytest.raises(ContractViolation, match=r"body\.model must be 'gpt-5\.5' or 'ft:gpt-5\.4-mini:acme'"):
        served.parse({"body": ASKED})
    assert (
        contract("anyfast", ["gpt-5.5"]).parse({"body": {"model": "gpt-5.5", "input": [MESSAGE]}}).body.stream is False
    )
    assert contract("openai", ["gpt-5.5"]) is contract("openai", ("gpt-5.5",))
    with pytest.raises(ValueError, match="must be anyfast or openai"):
        contract("chat")


def conforming(schema: Json, depth: int = 0) -> st.SearchStrategy[Any]:  # noqa: C901, PLR0911  # one arm for each keyword
    """Values that a schema of the shapes' vocabulary accepts."""
    if reference := schema.get("$ref"):
        return conforming(DEFINITIONS[reference.rpartition("/")[2]], depth + 1)
    if kinds := schema.get("anyOf"):
        return st.one_of([conforming(kind, depth) for kind in kinds])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    match schema.get("type"):
        case "object" if "properties" in schema:
            return _objects(schema, depth)
        case "object":
            values = conforming(schema.get("additionalProperties", {"type": "string"}), depth)
            return st.dictionaries(st.text("abc", min_size=1, max_size=4), values, max_size=2)
        case "array":
            return st.lists(conforming(schema["items"], depth), max_size=2) if depth < 12 else st.just([])
        case "integer":
            return st.integers(schema.get("minimum", -9), schema.get("maximum", 99))
        case "number":
            return st.floats(schema.get("minimum", 0), schema.get("maximum", 2))
        case "boolean":
            return st.booleans()
        case "null":
            return st.none()
        case "string":
            return st.just("telepathy_call") if "not" in schema else st.text("aß\U0001f680", max_size=4)
        case _:
            return ALMOST


def _objects(schema: Json, depth: int) -> st.SearchStrategy[Json]:
    fields = {
        name: st.deferred(lambda field=field: conforming(field, depth + 1))
        for name, field in schema["properties"].items()
        if field != {"not": {}}
    }
    required = {name: fields.pop(name) for name in schema.get("required", ())}
    return st.fixed_dictionaries(required, optional=fields if depth < 6 else {})


def _bodies() -> st.SearchStrategy[Json]:
    body = DEFINITIONS[OpenAIRequest.__name__]["properties"]
    fields = {name: conforming(field) for name, field in body.items() if name != "extra_body"}
    asked = {name: fields.pop(name) for name in ("model", "input")}
    some = st.lists(st.sampled_from(sorted(fields)), max_size=4, unique=True)
    return some.flatmap(lambda names: st.fixed_dictionaries(asked | {name: fields[name] for name in names}))


BODIES: Final = _bodies()
NEIGHBOURS: Final = ("type", "id", "role", "content", "status", "name", "text", "input", "telepathy")


@EXAMPLES
@given(body=BODIES)
def test_what_the_types_allow_passes_as_written(body: Json) -> None:
    assert JUDGE.is_valid({"body": body})
    assert violations(body) == ()
    assert json.dumps(OPENAI.parse({"body": body}).wire_body()) == json.dumps(body)


def test_mutations_are_judged_as_the_published_schema_judges_them() -> None:
    """Accepted by us if and only if by the schema, neither verdict being rare, and refusals name their place."""
    verdicts: Counter[str] = Counter()

    @settings(EXAMPLES, max_examples=examples(300))
    @given(body=mutated(BODIES, NEIGHBOURS))
    def judge(body: Json) -> None:
        found = violations(body)
        assert (found == ()) == JUDGE.is_valid({"body": body}), found
        assert [violation for violation in found if "is not valid" in violation.message] == []
        assert all(violation.field.startswith("body.") for violation in found)
        verdicts["refused" if found else "accepted"] += 1

    judge()
    assert min(verdicts["accepted"], verdicts["refused"]) > examples(20)
