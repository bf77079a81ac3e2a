"""The envelope: what it accepts, how it reads times, and that the body goes out exactly as it came in."""

import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Final

import pytest

from api_contracts import ContractViolation, GenerationRequest, InputMessage, ResponsesRequest, rfc3339

Json = dict[str, Any]

ENVELOPE: Final[Json] = json.loads((Path(__file__).parents[1] / "data" / "envelope.json").read_text())
"""Every field that an envelope and a body can have."""

BODY: Final[Json] = ENVELOPE["body"]
MESSAGE: Final[Json] = {"role": "user", "content": "x"}
MINIMAL: Final[Json] = {"model": "gpt-5.4-mini", "input": [MESSAGE]}


def test_an_envelope_with_every_field_is_read() -> None:
    """The widest envelope of the contract, one field at a time."""
    request = GenerationRequest.parse(ENVELOPE)

    assert (request.request_id, request.tenant, request.reply_to) == ("order-7:1", "shop", "shop.mail")
    assert request.enqueued_at == datetime(2026, 1, 31, 9, 30, tzinfo=UTC)
    assert request.deadline == datetime(2026, 1, 31, 10, 30, tzinfo=UTC)
    assert (request.timeout, request.max_attempts, request.metadata) == (30.0, 3, {"order": "7"})
    assert request.traceparent == ENVELOPE["traceparent"]
    assert request.body.max_output_tokens == 300
    assert request.body.input[1].content == "Hello!"
    assert request.unknown_keys == ()


def test_the_body_alone_is_enough() -> None:
    request = GenerationRequest.parse({"body": MINIMAL})

    assert (request.request_id, request.tenant, request.metadata) == (None, "default", {})
    assert (request.body.stream, request.body.store, request.body.top_p) == (False, True, None)


@pytest.mark.parametrize(
    "field", ["request_id", "reply_to", "enqueued_at", "deadline", "timeout", "max_attempts", "traceparent"]
)
def test_null_means_left_out_where_the_default_is_not_a_value(field: str) -> None:
    assert getattr(GenerationRequest.parse({"body": MINIMAL, field: None}), field) is None


def test_unknown_envelope_keys_are_ignored_and_reported() -> None:
    """Callers may be newer than workers; what is reported is bounded and safe to log."""
    newer = {"priority\n" + "p" * 99: 1} | {f"k{number}": 1 for number in range(99)}
    request = GenerationRequest.parse(ENVELOPE | {"retry_budget": 1})
    flooded = GenerationRequest.parse({"body": MINIMAL} | newer)

    assert request.unknown_keys == ("retry_budget",)
    assert GenerationRequest.parse({"body": MINIMAL, **dict(list(newer.items())[:1])}).unknown_keys == (
        "priority?" + "p" * 55,
    )
    assert len(flooded.unknown_keys) == 16


GOOD_BODIES: Final[dict[str, Json]] = {
    "an integer may be written with a zero fraction": {"max_output_tokens": 16.0},
    "top_p may be a whole number": {"top_p": 1},
    "top_p may be zero": {"top_p": 0},
    "nested unknown keys pass": {"text": {"format": {"type": "text", "strict": True}, "tone": None}},
    "empty options pass": {"text": {}, "reasoning": {}, "tools": [], "extra_body": {}},
    "messages may carry more": {"input": [MESSAGE | {"name": "Ann"}]},
    "what looks like kombu's typed values stays data": {"tools": [{"__type__": "uuid", "__value__": "x"}]},
    "strings may be empty": {"user": "", "tool_choice": ""},
}


@pytest.mark.parametrize("change", GOOD_BODIES.values(), ids=GOOD_BODIES.keys())
def test_a_good_body_goes_out_exactly_as_written(change: Json) -> None:
    """Same values, same types, same order, nothing filled in."""
    body = MINIMAL | change
    sent = GenerationRequest.parse({"body": body}).wire_body()

    assert repr(sent) == repr({key: value for key, value in body.items() if key != "extra_body"})


def test_bounds_are_inclusive() -> None:
    """The longest of everything that the contract allows."""
    widest = {"request_id": "Az09._:-" * 16, "tenant": "t" * 64, "reply_to": "r" * 64, "max_attempts": 20}
    metadata = {str(key): "v" * 512 for key in range(16)}

    assert GenerationRequest.parse({"body": MINIMAL, "metadata": metadata, **widest}).metadata == metadata


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("2026-01-31T09:30:00Z", "2026-01-31T09:30:00.000Z"),
        ("2026-01-31t09:30:00.5z", "2026-01-31T09:30:00.500Z"),
        ("2026-01-31 11:30:00.123456789+02:00", "2026-01-31T09:30:00.123Z"),
        ("2026-01-31T00:00:00-00:30", "2026-01-31T00:30:00.000Z"),
        (datetime(2026, 1, 31, 11, 30, tzinfo=timezone(timedelta(hours=2))), "2026-01-31T09:30:00.000Z"),
    ],
)
def test_times_are_read_with_any_offset_and_written_in_utc(written: object, read: str) -> None:
    """In, RFC 3339 or an aware datetime; out, UTC with milliseconds."""
    request = GenerationRequest.parse({"body": MINIMAL, "deadline": written})

    assert request.deadline is not None
    assert rfc3339(request.deadline) == request.model_dump(mode="json")["deadline"] == read


@pytest.mark.parametrize(
    "written",
    [
        "2026-01-31T09:30:00",
        "2026-01-31",
        "2026-02-30T09:30:00Z",
        "2026-01-31T24:00:00Z",
        "2026-01-31T09:30Z",
        "20260131T093000Z",
        "2026-01-31T09:30:00+0200",
        "2026-01-31T09:30:00Z\n",
        "\u0662026-01-31T09:30:00Z",
        "9999-12-31T23:00:00-05:00",
        "1769851800",
        "",
        1769851800,
        True,
        datetime(2026, 1, 31),  # noqa: DTZ001 - naive on purpose
    ],
)
def test_what_names_no_instant_is_refused(written: object) -> None:
    """No offset, no such day, another notation, or beyond the calendar once in UTC."""
    with pytest.raises(ContractViolation, match=r"^deadline must be an RFC 3339 time with its offset"):
        GenerationRequest.parse({"body": MINIMAL, "deadline": written})


def test_extra_body_is_merged_behind_the_rest() -> None:
    written = {"extra_body": {"temperature": 0.2, "seed": None}, **MINIMAL}

    sent = GenerationRequest.parse({"body": written}).wire_body()

    assert list(sent.items()) == [*MINIMAL.items(), ("temperature", 0.2), ("seed", None)]


def test_wire_body_leaves_the_request_as_it_was() -> None:
    request = GenerationRequest.parse(ENVELOPE)
    first = request.wire_body()
    first.clear()

    assert request.wire_body() == {key: BODY[key] for key in BODY if key != "extra_body"} | BODY["extra_body"]
    assert GenerationRequest.parse(request).wire_body() == request.wire_body()


def test_a_request_built_in_code_sends_what_was_set() -> None:
    body = ResponsesRequest(
        model="gpt-5.4-mini", input=[InputMessage(role="user", content="Hi")], extra_body={"seed": 1}
    )

    assert GenerationRequest(body=body).wire_body() == {
        "model": "gpt-5.4-mini",
        "input": [{"role": "user", "content": "Hi"}],
        "seed": 1,
    }


def test_a_request_survives_its_own_dump() -> None:
    """A worker reads all that a Python producer enqueues, nulls included."""
    request = GenerationRequest.parse(ENVELOPE)

    for unset in (False, True):
        dumped = request.model_dump(mode="json", exclude_unset=unset)
        dumped["body"] = request.body.model_dump(mode="json", exclude_unset=True)
        again = GenerationRequest.parse(dumped)
        assert again.model_dump() == request.model_dump()
        assert again.wire_body() == request.wire_body()
