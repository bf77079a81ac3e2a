"""Reading errors: whatever arrives is read, in bounded time, and waits are taken only where they make sense."""

import json
import time
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.failures import failure as failures
from worker.failures.error_reader import EXAMINED_BYTES, MAX_RETRY_AFTER_S, read_body
from worker.failures.failure import Failure, Route

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
IN_HALF_A_MINUTE = "Sun, 22 Nov 2026 12:00:30 GMT"

WAITS: dict[str, tuple[dict[str, str], float | None]] = {
    "none": ({}, None),
    "seconds": ({"Retry-After": "20"}, 20),
    "fraction": ({"retry-after": "1.5"}, 1.5),
    "zero": ({"retry-after": "0"}, 0),
    "milliseconds first": ({"Retry-After-Ms": "250", "retry-after": "9"}, 0.25),
    "bad milliseconds": ({"retry-after-ms": "soon", "retry-after": "9"}, 9),
    "negative milliseconds": ({"retry-after-ms": "-1", "retry-after": "9"}, 9),
    "date": ({"retry-after": IN_HALF_A_MINUTE}, 30),
    "date without a zone": ({"retry-after": "Sun, 22 Nov 2026 12:00:30 -0000"}, 30),
    "date in the past": ({"retry-after": "Sun, 22 Nov 2026 11:00:00 GMT"}, 0),
    "date out of reach": ({"retry-after": "Sun, 22 Nov 2099 11:00:00 GMT"}, None),
    "impossible date": ({"retry-after": "Sun, 99 Nov 2026 25:61:00 GMT"}, None),
    "longest": ({"retry-after": str(MAX_RETRY_AFTER_S)}, MAX_RETRY_AFTER_S),
    "an epoch": ({"retry-after": "1795350000"}, None),
    "negative": ({"retry-after": "-5"}, None),
    "infinite": ({"retry-after": "inf"}, None),
    "overflow": ({"retry-after": "1e999"}, None),
    "not a number": ({"retry-after": "nan"}, None),
    "words": ({"retry-after": "later"}, None),
    "empty": ({"retry-after": ""}, None),
}


@pytest.mark.parametrize(("headers", "wait_s"), WAITS.values(), ids=WAITS)
def test_retry_after_is_read_in_all_its_forms(headers: dict[str, str], wait_s: float | None) -> None:
    assert failures.parse_retry_after(headers, NOW) == wait_s


def test_a_date_counts_from_the_clock_of_the_server_that_sent_it() -> None:
    """Ours is years away from this one."""
    headers = {"Retry-After": "Sat, 01 Jan 2000 00:00:30 GMT", "Date": "Sat, 01 Jan 2000 00:00:00 GMT"}

    assert failures.from_http(429, headers, b"").retry_after_s == 30


WORDS: dict[str, float | None] = {
    "Please try again in 2.5s. Visit": 2.5,
    "Please try again in 84ms.": 0.084,
    "Please try again in 6m0s.": 360,
    "Please try again in 1h2m3s.": 3723,
    "Please try again in 2m.": 120,
    "Please retry after 86400 seconds.": 86400,
    "Please try again in a while.": None,
    "Please try again later.": None,
}


@pytest.mark.parametrize(("text", "wait_s"), WORDS.items(), ids=WORDS)
def test_a_wait_in_words_counts_where_no_header_says_one(text: str, wait_s: float | None) -> None:
    body = json.dumps({"error": {"message": text}}).encode()

    assert failures.from_http(429, {}, body).retry_after_s == wait_s
    assert failures.from_http(429, {"retry-after": "7"}, body).retry_after_s == 7


IDS: dict[str, tuple[dict[str, str], str, str | None]] = {
    "openai": ({"X-Request-ID": "req_1"}, "no", "req_1"),
    "new-api": ({"X-Oneapi-Request-Id": "2026x"}, "no", "2026x"),
    "in the message": ({}, "无效的令牌 (request id: 20261122abc)", "20261122abc"),
    "nowhere": ({}, "no (request id: )", None),
}


@pytest.mark.parametrize(("headers", "message", "expected"), IDS.values(), ids=IDS)
def test_the_request_id_is_found(headers: dict[str, str], message: str, expected: str | None) -> None:
    upstream = failures.from_http(500, headers, json.dumps({"error": message}).encode()).upstream

    assert upstream is not None
    assert upstream.request_id == expected


def test_html_is_reduced_to_its_words() -> None:
    upstream = failures.from_http(502, {}, b"<html><h1>Bad\n Gateway</h1><hr>nginx</html>").upstream

    assert upstream is not None
    assert upstream.message == "Bad Gateway nginx"


QUOTED = {
    "a number": ({"code": 504}, 504, ()),
    "a number in text": ({"code": "504"}, 504, ()),
    "no status": ({"code": 20504}, 500, ()),
    "words": ({"code": "bad_response", "message": "status_code=503, no"}, 503, ("bad_response",)),
    "code before type": ({"message": '{"type": "b_error", "code": "a_code"}'}, 500, ("a_code", "b_error")),
    "under a name of its own": ({"code": "own", "message": '{"code": "a_code"}'}, 500, ("own",)),
}


@pytest.mark.parametrize(("error", "status", "names"), QUOTED.values(), ids=QUOTED)
def test_what_a_wrapper_quotes_is_found(error: object, status: int, names: tuple[str, ...]) -> None:
    evidence = read_body(500, json.dumps({"error": error}).encode())

    assert (evidence.status, evidence.names) == (status, names)


def test_what_people_wrote_stays_out_of_a_repr() -> None:
    evidence = read_body(500, b'{"error": {"message": "a prompt"}}')

    assert evidence.message == evidence.text == "a prompt"
    assert "a prompt" not in repr(evidence)


KEYS = st.sampled_from(
    ["error", "code", "type", "status", "param", "message", "detail", "response", "incomplete_details"]
)
VALUES = st.sampled_from(
    ["failed", "incomplete", "completed", "error", "upstream_error", "429", "content_filter", 503, 1e400, 10**40]
)
JSON = st.recursive(
    VALUES | st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS | st.text(), inner, max_size=6),
    max_leaves=20,
)
HEADERS = st.dictionaries(
    st.sampled_from(["retry-after", "Retry-After-Ms", "Date", "x-should-retry", "X-Request-Id"]) | st.text(),
    st.text()
    | st.floats().map(str)
    | st.datetimes().map(format_datetime)
    | st.from_regex(r"\A\w{3}, \d{1,3} \w{3} \d{1,6} \d\d:\d\d:\d\d ([+-]\d{1,6}|GMT)\Z"),
    max_size=4,
)


def assert_sound(failure: Failure) -> None:
    assert failure.mapped().code is failure.code
    assert failure.route in Route
    assert failure.retry_after_s is None or failure.retry_after_s >= 0
    if failure.upstream is not None:
        assert len(failure.upstream.message or "") <= 1000


@given(st.integers(0, 999), HEADERS, st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_status_headers_and_body_give_a_failure(status: int, headers: dict[str, str], body: bytes) -> None:
    failure = failures.from_http(status, headers, body)

    assert_sound(failure)
    assert failure.http_status == status


@given(JSON, HEADERS)
def test_any_decoded_object_gives_a_failure_unless_completed(body: object, headers: dict[str, str]) -> None:
    failure = failures.from_object(body, b"", headers)

    if failure is None:
        assert isinstance(body, dict)
    else:
        assert_sound(failure)


MEGABYTE = 1024 * 1024
HOSTILE = {
    "deep": b"[" * MEGABYTE,
    "deep objects": b'{"error":' * (MEGABYTE // 9),
    "open tags": b"<" * MEGABYTE,
    "tags": b"<a" * (MEGABYTE // 2),
    "quotes": b'"code\\\\\\' * (MEGABYTE // 8),
    "digits": b"limit 1" * (MEGABYTE // 7),
    "models": b"model " * (MEGABYTE // 6),
    "blanks": b" " * MEGABYTE,
    "waits": b"try again in 1h" * (MEGABYTE // 15),
    "zeros": bytes(MEGABYTE),
    "invalid utf-8": b"\xff" * MEGABYTE,
    "long message": json.dumps({"error": {"message": "limit 1 model " * 70_000}}).encode(),
    "wide": json.dumps({"error": [{"code": "x" * 99}] * 5000})[:EXAMINED_BYTES].encode(),
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE)
def test_a_megabyte_costs_no_more_than_a_few_milliseconds(body: bytes) -> None:
    """CPU time, so that a busy machine does not fail it; measured at 1 ms, catastrophic matching takes seconds."""
    before_s = time.process_time()
    assert_sound(failures.from_http(500, {}, body))

    assert time.process_time() - before_s < 0.1


def test_a_code_is_found_even_where_the_body_was_cut() -> None:
    body = json.dumps({"error": {"code": "rate_limit_exceeded", "message": "x" * 2 * EXAMINED_BYTES}}).encode()

    assert failures.from_http(500, {}, body).route is Route.THROTTLE
