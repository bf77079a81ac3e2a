"""The gateway's answers and the consumers' results: unknown fields kept, missing ones no reason to fail."""

import json
from pathlib import Path
from typing import Any, Final

import pytest
from pydantic import ValidationError

from api_contracts import (
    ContractViolation,
    ErrorBody,
    ErrorCode,
    GenerationResult,
    MappedError,
    ResponseObject,
    StreamEvent,
    UpstreamError,
    Usage,
    Violation,
)

Json = dict[str, Any]

DATA: Final = Path(__file__).parents[1] / "data"
RESPONSE: Final[Json] = json.loads((DATA / "response.json").read_text())
"""The example of the gateway's OpenAPI document."""

RESULT: Final[Json] = json.loads((DATA / "result.json").read_text())
"""Every field that a result can have."""


def test_the_documented_example_is_read() -> None:
    response = ResponseObject.model_validate_json(json.dumps(RESPONSE))

    assert (response.id, response.model, response.status) == (RESPONSE["id"], "gpt-5.4-mini", "completed")
    assert response.output_text == "Hi! How can I help you today?"
    assert response.usage is not None
    assert (response.usage.input_tokens, response.usage.output_tokens, response.usage.total_tokens) == (8, 15, 23)
    assert response.model_dump(mode="json", exclude_unset=True) == RESPONSE


TOLERATED: Final[dict[str, Json]] = {
    "nothing but status and output": {"status": "completed", "output": []},
    "a failure without output": {"status": "failed", "error": {"code": "server_error", "message": "x"}},
    "an unknown status": {"status": "paused"},
    "nulls": {"status": "queued", "id": None, "usage": None, "error": None, "incomplete_details": None},
    "an unknown item": {"status": "completed", "output": [{"type": "mcp_call", "arguments": "{}"}]},
    "an item whose content is null": {"status": "completed", "output": [{"type": "reasoning", "content": None}]},
    "numbers and worse for text": {"status": "completed", "output": [{"id": 7, "role": {}}], "id": 7},
    "a fraction of a second": {"status": "completed", "output": [], "created_at": 1773132155.25},
    "usage that does not add up": {"status": "completed", "output": [], "usage": {"input_tokens": -1}},
    "citations of another shape": {"status": "completed", "output": [{"content": [{"annotations": "x"}]}]},
    "a reason of another shape": {"status": "incomplete", "output": [], "incomplete_details": "x"},
    "usage of another shape": {"status": "completed", "output": [], "usage": "8"},
}


@pytest.mark.parametrize("answer", TOLERATED.values(), ids=TOLERATED.keys())
def test_an_answer_is_not_lost_over_a_field_nobody_needed(answer: Json) -> None:
    response = ResponseObject.model_validate(answer)

    assert (response.status, response.output_text) == (answer["status"], "")


@pytest.mark.parametrize(
    "answer",
    [
        {},
        [],
        "completed",
        {"status": None, "output": []},
        {"status": "completed"},
        {"status": "completed", "output": None},
        {"status": "completed", "output": ["Hi!"]},
        {"status": "completed", "output": [{"content": "Hi!"}]},
    ],
)
def test_what_is_no_answer_is_refused(answer: object) -> None:
    """Without a status, or completed without readable output, there is nothing to publish."""
    with pytest.raises(ValidationError):
        ResponseObject.model_validate(answer)


def test_output_text_joins_text_and_nothing_else() -> None:
    """As the OpenAI SDK's property of that name: refusals and other parts are not text."""
    parts = [{"type": "output_text", "text": "a"}, {"type": "refusal", "refusal": "no", "text": "x"}]
    output = [{"content": parts}, {"type": "reasoning"}, {"content": [{"type": "output_text", "text": "b"}]}]

    assert ResponseObject.model_validate({"status": "completed", "output": output}).output_text == "ab"


@pytest.mark.parametrize(
    ("reported", "counts"),
    [
        ({}, (0, 0, 0, 0, 0)),
        ({"input_tokens": 8, "output_tokens": 15}, (8, 15, 23, 0, 0)),
        ({"input_tokens": 8, "output_tokens": None, "total_tokens": 9}, (8, 0, 9, 0, 0)),
        ({"input_tokens": 8, "input_tokens_details": {"cached_tokens": 5}}, (8, 0, 8, 5, 0)),
        ({"output_tokens": 9, "output_tokens_details": {"reasoning_tokens": 7}}, (0, 9, 9, 0, 7)),
        ({"input_tokens_details": None, "output_tokens_details": {"other": 1}}, (0, 0, 0, 0, 0)),
    ],
)
def test_usage_counts_what_was_reported(reported: Json, counts: tuple[int, ...]) -> None:
    """Input, output, total, cached, reasoning; left out is zero, and a missing total is the sum."""
    usage = Usage.model_validate(reported)

    assert counts == (
        usage.input_tokens,
        usage.output_tokens,
        usage.total_tokens,
        usage.cached_tokens,
        usage.reasoning_tokens,
    )


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        ({"error": {"code": "invalid_api_key", "message": "No."}}, "invalid_api_key", "No."),
        ({"error": {"code": 429, "message": None, "param": 1, "type": []}}, "429", None),
        ({"error": {"code": {"a": 1}}}, None, None),
        ({"error": "overloaded"}, None, "overloaded"),
    ],
)
def test_error_bodies_of_all_dialects_are_read(body: Json, code: str | None, message: str | None) -> None:
    error = ErrorBody.model_validate(body).error

    assert error is not None
    assert (error.code, error.message) == (code, message)


@pytest.mark.parametrize("body", [{}, {"error": None}, {"message": "No token provided"}])
def test_a_body_without_an_error_is_none(body: Json) -> None:
    assert ErrorBody.model_validate(body).error is None


def test_stream_events_are_read() -> None:
    """Deltas, terminal events with their response, and errors in both of their shapes."""
    delta = StreamEvent.model_validate({"type": "response.output_text.delta", "delta": "Hi", "obfuscation": "x"})
    done = StreamEvent.model_validate({"type": "response.completed", "sequence_number": 9, "response": RESPONSE})
    flat = StreamEvent.model_validate({"type": "error", "code": "server_error", "message": "x", "param": None})
    nested = StreamEvent.model_validate({"type": "error", "error": {"code": "server_error"}})

    assert (delta.delta, delta.is_terminal) == ("Hi", False)
    assert done.response is not None
    assert (done.response.output_text, done.is_terminal) == ("Hi! How can I help you today?", True)
    assert (flat.code, flat.is_terminal) == ("server_error", True)
    assert nested.error is not None
    assert nested.error.code == "server_error"


@pytest.mark.parametrize("encode", [str, str.encode], ids=["decoded replies", "raw replies"])
def test_a_result_is_read_from_a_stream_entry(encode: Any) -> None:
    """Whether or not the Redis client decodes, and whatever fields the entry has beside."""
    fields = {"request_id": "order-7:1", "tenant": "shop", "outcome": "incomplete", "result": json.dumps(RESULT)}

    result = GenerationResult.from_entry({encode(key): encode(value) for key, value in fields.items()})

    assert result.error is not None
    assert result.error.code is ErrorCode.INCOMPLETE_MAX_TOKENS
    assert result.attempts[0].duration_ms == result.timing.upstream_ms == 1200
    assert json.loads(result.model_dump_json(exclude_unset=True)) == RESULT


def test_a_result_of_a_newer_worker_is_read() -> None:
    """New fields at any level change nothing for an older reader."""
    newer = RESULT | {
        "region": "eu",
        "attempts": [RESULT["attempts"][0] | {"cost": 1}],
        "timing": RESULT["timing"] | {"parked_ms": 3},
        "error": RESULT["error"] | {"hint": "x"},
    }

    assert GenerationResult.from_entry({"result": json.dumps(newer)}) == GenerationResult.from_entry(
        {"result": json.dumps(RESULT)}
    )


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({}, "result must be JSON"),
        ({"result": "{"}, "result must be JSON"),
        ({"result": "[]"}, "result must be an object"),
        (
            {b"result": json.dumps(RESULT | {"outcome": "lost"})},
            "outcome must be 'completed', 'incomplete' or 'failed'",
        ),
        ({"result": json.dumps(RESULT | {"error": {"code": "odd"}})}, "error.code must be 'invalid_request', "),
    ],
)
def test_an_entry_that_is_no_result_is_refused(entry: Json, message: str) -> None:
    with pytest.raises(ContractViolation) as refused:
        GenerationResult.from_entry(entry)

    assert str(refused.value).startswith(message)


def test_the_error_codes_are_the_closed_list() -> None:
    """Consumers in other languages switch over these strings."""
    assert " ".join(sorted(ErrorCode)) == (
        "authentication_failed cancelled content_rejected context_length_exceeded deadline_exceeded "
        "duplicate_conflict incomplete_max_tokens internal_error invalid_request invalid_response "
        "model_unavailable output_invalid permission_denied quota_exhausted rate_limited request_too_large "
        "upstream_error upstream_overloaded upstream_timeout upstream_unreachable"
    )


def test_a_mapped_error_is_written_with_every_field() -> None:
    """The shape that consumers rely on, nulls and empty lists included."""
    violation = Violation(field="body.model", message="body.model is required", type="missing")
    bare = MappedError(code=ErrorCode.CANCELLED, message="Cancelled.", retryable=False)
    full = MappedError(
        code=ErrorCode.INVALID_REQUEST,
        message="No.",
        retryable=False,
        http_status=400,
        upstream=UpstreamError(code="x"),
        violations=[violation],
    )

    assert json.loads(bare.model_dump_json()) == {
        "code": "cancelled",
        "message": "Cancelled.",
        "retryable": False,
        "http_status": None,
        "upstream": None,
        "violations": [],
    }
    assert MappedError.model_validate_json(full.model_dump_json()) == full
