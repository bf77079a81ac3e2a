"""A broken contract is told at its place, with the right value, and never with the caller's words."""

import pickle
from typing import Any, Final

import pytest

from api_contracts import (
    ContractViolation,
    GenerationRequest,
    Violation,
)

Json = dict[str, Any]

MESSAGE: Final[Json] = {"role": "user", "content": "x"}
MINIMAL: Final[Json] = {"model": "gpt-5.4-mini", "input": [MESSAGE]}


def refusal(raw: object) -> tuple[Violation, ...]:
    with pytest.raises(ContractViolation) as refused:
        GenerationRequest.parse(raw)
    return refused.value.violations


BAD_BODIES: Final[list[tuple[Json, str, str]]] = [
    ({"model": "gpt-5.4"}, "body.model", "literal_error"),
    ({"model": None}, "body.model", "literal_error"),
    ({"input": []}, "body.input", "too_short"),
    ({"input": "Hello!"}, "body.input", "list_type"),
    ({"input": {"0": MESSAGE}}, "body.input", "list_type"),
    ({"input": ["Hello!"]}, "body.input.0", "model_type"),
    ({"input": [MESSAGE, {"content": "x"}]}, "body.input.1.role", "missing"),
    ({"input": [{"role": "user"}]}, "body.input.0.content", "missing"),
    ({"input": [{"role": "developer", "content": "x"}]}, "body.input.0.role", "literal_error"),
    ({"input": [{"role": "user", "content": None}]}, "body.input.0.content", "string_type"),
    ({"input": [{"role": "user", "content": ["x"]}]}, "body.input.0.content", "string_type"),
    ({"stream": "true"}, "body.stream", "bool_type"),
    ({"stream": 1}, "body.stream", "bool_type"),
    ({"stream": None}, "body.stream", "bool_type"),
    ({"top_p": 1.01}, "body.top_p", "less_than_equal"),
    ({"top_p": -0.01}, "body.top_p", "greater_than_equal"),
    ({"top_p": "0.5"}, "body.top_p", "float_type"),
    ({"top_p": True}, "body.top_p", "float_type"),
    ({"top_p": None}, "body.top_p", "float_type"),
    ({"top_p": float("nan")}, "body.top_p", "finite_number"),
    ({"max_output_tokens": 0}, "body.max_output_tokens", "greater_than_equal"),
    ({"max_output_tokens": 0.0}, "body.max_output_tokens", "greater_than_equal"),
    ({"max_output_tokens": 1.5}, "body.max_output_tokens", "int_type"),
    ({"max_output_tokens": "5"}, "body.max_output_tokens", "int_type"),
    ({"max_output_tokens": True}, "body.max_output_tokens", "int_type"),
    ({"max_output_tokens": float("inf")}, "body.max_output_tokens", "int_type"),
    ({"text": None}, "body.text", "model_type"),
    ({"text": {"format": "text"}}, "body.text.format", "model_type"),
    ({"text": {"format": {"type": "json_schema"}}}, "body.text.format.type", "literal_error"),
    ({"text": {"verbosity": None}}, "body.text.verbosity", "literal_error"),
    ({"reasoning": []}, "body.reasoning", "model_type"),
    ({"reasoning": {"effort": "minimal"}}, "body.reasoning.effort", "literal_error"),
    ({"reasoning": {"summary": "none"}}, "body.reasoning.summary", "literal_error"),
    ({"tools": {}}, "body.tools", "list_type"),
    ({"tools": [{}, "x"]}, "body.tools.1", "dict_type"),
    ({"tool_choice": {"type": "auto"}}, "body.tool_choice", "string_type"),
    ({"store": 0}, "body.store", "bool_type"),
    ({"user": 7}, "body.user", "string_type"),
    ({"temperature": 0.2}, "body.temperature", "extra_forbidden"),
    ({"extra_body": None}, "body.extra_body", "dict_type"),
    ({"extra_body": [1]}, "body.extra_body", "dict_type"),
    ({"extra_body": {"background": True}}, "body.extra_body", "value_error"),
    ({"extra_body": {"stream": True}}, "body.extra_body", "value_error"),
    ({"extra_body": {"extra_body": {}}}, "body.extra_body", "value_error"),
]


@pytest.mark.parametrize(("change", "field", "kind"), BAD_BODIES)
def test_a_bad_body_is_refused_where_it_is_bad(change: Json, field: str, kind: str) -> None:
    (violation,) = refusal({"body": MINIMAL | change})

    assert (violation.field, violation.type) == (field, kind)
    assert violation.message.startswith(f"{field} ")


WAYS_OUT: Final[list[tuple[Json, str]]] = [
    ({"stream_options": {"include_usage": True}}, "leave it out"),
    ({"background": True}, "leave it out"),
    ({"extra_body": {"background": True}}, "waits for the answer"),
    ({"input": "Hello!"}, "array of messages"),
    ({"input": [{"role": "user", "content": [{"type": "input_text", "text": "x"}]}]}, "join the text"),
    ({"text": {"format": {"type": "json_schema", "name": "n", "schema": {}}}}, "json_object"),
]


@pytest.mark.parametrize(("change", "way_out"), WAYS_OUT)
def test_what_callers_of_the_sdk_write_is_refused_with_the_way_out(change: Json, way_out: str) -> None:
    (violation,) = refusal({"body": MINIMAL | change})

    assert way_out in violation.message


BAD_ENVELOPES: Final[list[tuple[object, str, str]]] = [
    (None, "envelope", "model_type"),
    ([], "envelope", "model_type"),
    ("{}", "envelope", "model_type"),
    ({}, "body", "missing"),
    ({"body": None}, "body", "model_type"),
    ({"body": MINIMAL, "request_id": ""}, "request_id", "string_too_short"),
    ({"body": MINIMAL, "request_id": "i" * 129}, "request_id", "string_too_long"),
    ({"body": MINIMAL, "request_id": "a b"}, "request_id", "string_pattern_mismatch"),
    ({"body": MINIMAL, "request_id": "a\n"}, "request_id", "string_pattern_mismatch"),
    ({"body": MINIMAL, "request_id": "\u0661"}, "request_id", "string_pattern_mismatch"),
    ({"body": MINIMAL, "request_id": 7}, "request_id", "string_type"),
    ({"body": MINIMAL, "tenant": "t" * 65}, "tenant", "string_too_long"),
    ({"body": MINIMAL, "tenant": ""}, "tenant", "string_too_short"),
    ({"body": MINIMAL, "tenant": "a/b"}, "tenant", "string_pattern_mismatch"),
    ({"body": MINIMAL, "tenant": None}, "tenant", "string_type"),
    ({"body": MINIMAL, "reply_to": "r" * 65}, "reply_to", "string_too_long"),
    ({"body": MINIMAL, "reply_to": "*"}, "reply_to", "string_pattern_mismatch"),
    ({"body": MINIMAL, "timeout": 0}, "timeout", "greater_than"),
    ({"body": MINIMAL, "timeout": float("inf")}, "timeout", "finite_number"),
    ({"body": MINIMAL, "timeout": "30"}, "timeout", "float_type"),
    ({"body": MINIMAL, "timeout": True}, "timeout", "float_type"),
    ({"body": MINIMAL, "max_attempts": 0}, "max_attempts", "greater_than_equal"),
    ({"body": MINIMAL, "max_attempts": 21}, "max_attempts", "less_than_equal"),
    ({"body": MINIMAL, "max_attempts": 2.5}, "max_attempts", "int_type"),
    ({"body": MINIMAL, "metadata": None}, "metadata", "dict_type"),
    ({"body": MINIMAL, "metadata": {"a": 1}}, "metadata.a", "string_type"),
    ({"body": MINIMAL, "metadata": {"a": "v" * 513}}, "metadata.a", "string_too_long"),
    ({"body": MINIMAL, "metadata": {str(key): "" for key in range(17)}}, "metadata", "too_long"),
    ({"body": MINIMAL, "traceparent": "00-abc"}, "traceparent", "string_pattern_mismatch"),
]


@pytest.mark.parametrize(("raw", "field", "kind"), BAD_ENVELOPES)
def test_a_bad_envelope_is_refused_where_it_is_bad(raw: object, field: str, kind: str) -> None:
    (violation,) = refusal(raw)

    assert (violation.field, violation.type) == (field, kind)


@pytest.mark.parametrize(
    ("key", "advice"),
    [
        ("modle", "did you mean model?"),
        ("max_tokens", "did you mean max_output_tokens?"),
        ("topp", "did you mean top_p?"),
        ("temperature", "put what is newer than the contract into extra_body; known: extra_body, input,"),
    ],
)
def test_an_unknown_key_is_answered_with_the_nearest_name(key: str, advice: str) -> None:
    """Without a near one, all of them, and the way around the contract."""
    (violation,) = refusal({"body": MINIMAL | {key: 1}})

    assert violation.message.startswith(f"body.{key} is not a known name; {advice}")


def test_all_mistakes_are_told_at_once() -> None:
    """One round trip per mistake would be a poor way to learn a contract."""
    found = refusal({"body": {"modle": "x", "input": [{"role": "usr"}], "top_p": 2}, "timeout": 0})

    assert [violation.field for violation in found] == [
        "body.model",
        "body.input.0.role",
        "body.input.0.content",
        "body.top_p",
        "body.modle",
        "timeout",
    ]


def test_a_flood_of_mistakes_is_told_briefly() -> None:
    """A result stays small: twenty violations, and of `input` only the first faulty message."""
    keys = refusal({"body": MINIMAL | {f"key{number}": 1 for number in range(200)}})
    flood = refusal({"body": MINIMAL | {f"key{number}": 1 for number in range(1000)}})
    messages = refusal({"body": MINIMAL | {"input": [0] * 100_000}})

    assert len(keys) == 20
    assert [violation.message for violation in flood] == ["body must have at most 256 keys"]
    assert keys[-1].message == "envelope breaks its contract in 181 more ways"
    assert [violation.field for violation in messages] == ["body.input.0"]


def test_a_key_is_repeated_cut_and_unable_to_forge_a_log_line() -> None:
    (violation,) = refusal({"body": MINIMAL | {"k\n\x1b[2J" + "x" * 100_000: 1}})

    assert violation.field == "body.k??[2J" + "x" * 58


def test_a_violation_survives_pickling() -> None:
    """Exceptions cross process boundaries in a Celery worker, and many do not come back."""
    with pytest.raises(ContractViolation) as refused:
        GenerationRequest.parse({})
    copy: ContractViolation = pickle.loads(pickle.dumps(refused.value))  # noqa: S301 - our own bytes

    assert copy.violations == refused.value.violations
    assert str(copy) == "body is required"
