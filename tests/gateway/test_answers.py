"""The meaning of a 200, byte for byte."""

import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.raw_gateway import DELTA, INCOMPLETE, RESPONSE, error_body, terminal

from api_contracts.errors import ErrorCode
from api_contracts.responses import ResponseObject
from worker.failures.failure import Failure, Route
from worker.gateway.answers import Answer, is_event_stream, read_document
from worker.gateway.members import member_bytes
from worker.gateway.sse import Event
from worker.gateway.stream import StreamReader

SPACE = st.text(" \t\r\n", max_size=2)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.just("response"), inner), max_leaves=20
)
ENCODED = VALUES.map(json.dumps) | VALUES.map(lambda value: json.dumps(value, indent=1, ensure_ascii=False))
NAMES = st.sampled_from(['"response"', '"r\\u0065sponse"', '"x\\"response\\""', '"a{"', '""']) | st.text().map(
    json.dumps
)


def outcome_of(document: bytes) -> Answer | Failure:
    return read_document(document, {}, 200)


def read_event(event: Event) -> Answer | Failure | None:
    return StreamReader({}, 200, 1000).take(event)


@given(st.lists(st.tuples(NAMES, ENCODED, SPACE, SPACE, SPACE, SPACE), max_size=6), SPACE)
def test_a_member_is_cut_out_as_it_was_written(members: list[tuple[str, str, str, str, str, str]], space: str) -> None:
    """The bytes that were put in come out, whatever surrounds the member and however it is spaced."""
    body = ",".join(f"{a}{name}{b}:{c}{value}{d}" for name, value, a, b, c, d in members)
    document = f"{space}{{{body or space}}}{space}".encode("utf-8", "surrogatepass")
    written = {json.loads(name): value for name, value, *_ in members}

    found = member_bytes(document, "response")

    assert found == (written["response"].encode("utf-8", "surrogatepass") if "response" in written else None)


@pytest.mark.parametrize(
    "value",
    [b"[" * 300 + b"]" * 300, b'"' + b"\\n{[" * 300_000 + b'"', b'{"a":"b"' + b',"c":"d"' * 100_000 + b"}"],
)
def test_deep_long_and_wide_values_are_no_problem(value: bytes) -> None:
    """No recursion, no backtracking: a hostile event costs what its length costs."""
    assert member_bytes(b'{"x":{"response":1},"response":%s}' % value, "response") == value


@pytest.mark.parametrize("levels", [191, 15_000])
def test_a_tower_beside_the_answer_becomes_null(levels: int) -> None:
    answer = outcome_of(RESPONSE[:-1] + b',"tools":%s}' % (b"[" * levels + b"]" * levels))

    assert isinstance(answer, Answer)
    assert answer.raw == RESPONSE[:-1] + b',"tools":null}'


def test_a_completed_object_is_an_answer() -> None:
    """Its bytes are untouched and what the worker needs of it is read."""
    answer = outcome_of(b" \n" + RESPONSE + b"\n")

    assert isinstance(answer, Answer)
    assert answer.raw == b" \n" + RESPONSE + b"\n"
    assert (answer.status, answer.failure) == ("completed", None)
    assert (answer.model, answer.response_id) == ("gpt-5.4-mini", "resp_1")
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.total_tokens) == (8, 15, 23)


def test_an_incomplete_object_is_an_answer_with_its_failure() -> None:
    """It was paid for and is published, together with the reason it ends early."""
    answer = outcome_of(INCOMPLETE)

    assert isinstance(answer, Answer)
    assert answer.status == "incomplete"
    assert answer.failure is not None
    assert answer.failure.code is ErrorCode.INCOMPLETE_MAX_TOKENS
    assert answer.raw == answer.failure.response == INCOMPLETE


@pytest.mark.parametrize("usage", [b"null", b"17", b"[]", b'{"input_tokens": "many"}', b'{"output_tokens": -1}'])
def test_usage_that_cannot_be_read_does_not_cost_the_answer(usage: bytes) -> None:
    """The usage is dropped, the answer stays."""
    start = RESPONSE.index(b'{"input_tokens"')
    document = RESPONSE[:start] + usage + RESPONSE[RESPONSE.index(b"}", start) + 1 :]

    answer = outcome_of(document)

    assert isinstance(answer, Answer)
    assert answer.usage is None


def test_an_answer_without_usage_is_an_answer() -> None:
    """The gateway's document requires it; some channels leave it out."""
    answer = outcome_of(orjson.dumps({k: v for k, v in orjson.loads(RESPONSE).items() if k != "usage"}))

    assert isinstance(answer, Answer)
    assert answer.usage is None


@pytest.mark.parametrize("missing", ["status", "output"])
@pytest.mark.parametrize("replacement", [..., None, {}, False])
def test_an_object_without_an_essential_is_no_answer(missing: str, replacement: object) -> None:
    """Nothing is guessed: not even a status, where there is output that does not say it is completed."""
    document = orjson.loads(RESPONSE)
    del document[missing]
    if replacement is not ...:
        document[missing] = replacement

    failure = outcome_of(orjson.dumps(document))

    assert isinstance(failure, Failure)
    assert (failure.code, failure.http_status, failure.response) == (ErrorCode.INVALID_RESPONSE, 200, None)


@pytest.mark.parametrize(
    "body", [b"", b" \n", b"null", b"[]", b'"completed"', b"<html>secret</html>", RESPONSE[:-1], b"x{}", b"{}"]
)
def test_a_body_that_is_no_response_object_is_an_invalid_response(body: bytes) -> None:
    """And the failure quotes nothing of it."""
    failure = outcome_of(body)

    assert isinstance(failure, Failure)
    assert failure.code is ErrorCode.INVALID_RESPONSE
    assert "secret" not in repr(failure)


def test_an_error_under_200_keeps_its_own_code() -> None:
    """new-api wraps errors that it finds in a 200 into a 200."""
    failure = outcome_of(error_body("insufficient_quota"))

    assert isinstance(failure, Failure)
    assert failure.code is ErrorCode.QUOTA_EXHAUSTED


@pytest.mark.parametrize("status", [b"in_progress", b"queued", b"cancelled"])
def test_an_object_that_is_not_final_is_attached_to_its_failure(status: bytes) -> None:
    """The caller may look it up by its id."""
    document = RESPONSE.replace(b"completed", status)

    failure = outcome_of(document)

    assert isinstance(failure, Failure)
    assert (failure.code, failure.response) == (ErrorCode.INVALID_RESPONSE, document)


def test_what_cannot_be_read_is_never_attached() -> None:
    """A consumer must be able to read every response that a result carries."""
    failure = outcome_of(b'{"id": "r", "status": "in_progress", "output": 5}')

    assert isinstance(failure, Failure)
    assert failure.response is None


@pytest.mark.parametrize("name", ["response.completed", "", "message"])
def test_a_terminal_event_tells_its_response_byte_for_byte(name: str) -> None:
    """`type` in the data decides; the event's name is often missing."""
    answer = read_event(Event(name, terminal()))

    assert isinstance(answer, Answer)
    assert answer.raw == RESPONSE


@pytest.mark.parametrize(
    ("event", "code"),
    [
        (Event("error", b'{"code":"insufficient_quota","message":"m"}'), ErrorCode.QUOTA_EXHAUSTED),
        (Event("", b'{"type":"error","code":"insufficient_quota","message":"m"}'), ErrorCode.QUOTA_EXHAUSTED),
        (Event("", b'{"type":"error","error":{"code":"insufficient_quota"}}'), ErrorCode.QUOTA_EXHAUSTED),
        (Event("", error_body("insufficient_quota")), ErrorCode.QUOTA_EXHAUSTED),
        (
            Event("", terminal(b'{"status":"failed","error":{"code":"server_error"}}', "response.failed")),
            ErrorCode.UPSTREAM_ERROR,
        ),
        (Event("response.completed", b"{}"), ErrorCode.INVALID_RESPONSE),
        (Event("", b'{"type":"response.completed","response":[]}'), ErrorCode.INVALID_RESPONSE),
    ],
)
def test_a_terminal_event_may_be_a_failure(event: Event, code: ErrorCode) -> None:
    """Errors come flat, nested and untyped."""
    failure = read_event(event)

    assert isinstance(failure, Failure)
    assert failure.code is code


@pytest.mark.parametrize(
    "data", [DELTA, b"[DONE]", b"", b"[]", b"null", b"{", b'{"type":"response.created","response":{"status":"x"}}']
)
def test_other_events_tell_nothing(data: bytes) -> None:
    assert read_event(Event("", data)) is None


@pytest.mark.parametrize(
    ("content_type", "head", "expected"),
    [
        ("text/event-stream; charset=utf-8", b"event: x", True),
        ("Text/Event-Stream", b": ping", True),
        ("text/event-stream", b"", True),
        ("text/event-stream", b' {"error": ', False),
        ("application/json", b"data: {", True),
        ("", b"event:x", True),
        ("application/json", b"{", False),
        ("text/html", b"<html>", False),
        ("", b"", False),
    ],
)
def test_events_are_known_by_what_they_are_first(content_type: str, head: bytes, expected: bool) -> None:  # noqa: FBT001  # a table
    """Gateways put either label on either body."""
    assert is_event_stream(content_type, head) is expected


def test_a_terminal_event_without_its_response_ends_what_the_stream_began() -> None:
    """The object as it began, with the items that were finished since."""
    reader = StreamReader({}, 200, 100_000)
    begun = RESPONSE.replace(b"completed", b"in_progress")
    item = orjson.dumps(orjson.loads(RESPONSE)["output"][0])

    assert reader.take(Event("", b'{"type":"response.created","response":%s}' % begun)) is None
    assert reader.take(Event("", b'{"type":"response.output_item.done","output_index":0,"item":%s}' % item)) is None
    answer = reader.take(Event("", b'{"type":"response.completed","response":null}'))

    assert isinstance(answer, Answer)
    assert (answer.status, answer.response_id) == ("completed", "resp_1")
    assert ResponseObject.model_validate_json(answer.raw).output_text


def test_watchers_see_events_that_are_json_and_no_others() -> None:
    """A follower of a stream reads every entry: a cut event, a mark and bare text are not told."""
    seen: list[bytes] = []
    reader = StreamReader({}, 200, 100_000, seen.append)

    for data in (DELTA, b"[DONE]", b'{"type":"response.completed","respo', b"\xef\xbb\xbf" + DELTA, b"ping"):
        reader.take(Event("", data))

    assert seen == [DELTA, DELTA]


@pytest.mark.parametrize("code", ["server_error", "rate_limit_exceeded", "server_is_overloaded"])
@pytest.mark.parametrize("delta", [DELTA, b'{"type":"response.function_call_arguments.delta","delta":"{"}'])
def test_a_failure_after_output_was_paid_for_in_part(delta: bytes, code: str) -> None:
    """It spends an attempt and is made once more, even where the same failure at the start would spend none."""
    early, late = StreamReader({}, 200, 1000), StreamReader({}, 200, 1000)
    late.take(Event("", delta))

    first, second = early.take(Event("", error_body(code))), late.take(Event("", error_body(code)))

    assert isinstance(first, Failure)
    assert isinstance(second, Failure)
    assert not first.maybe_billed
    assert (second.code, second.maybe_billed, second.max_attempts) == (first.code, True, 2)
    assert second.route is Route.RETRY
