"""The evidence of a finished call about the upstream, and the part that stays with its request."""

from dataclasses import replace
from typing import Final

import pytest
from support.admission_parts import answered

from api_contracts import ErrorCode
from api_contracts.errors import UpstreamError
from api_contracts.responses import Usage
from worker.admission.evidence import NEVER_CALLED, TROUBLES, Evidence, Verdict, read
from worker.failures.failure import Failure, Route, TransportKind, from_http, from_transport
from worker.gateway.answers import Answer
from worker.gateway.upstream import Call
from worker.request.charges import INTERRUPTED

SAYS_NOTHING: Final = frozenset({ErrorCode.PERMISSION_DENIED, ErrorCode.INVALID_RESPONSE})
TIMED_OUT: Final = Failure.of(ErrorCode.UPSTREAM_TIMEOUT)


def ended(outcome: Answer | Failure, **headers: str) -> Call:
    return replace(answered({name.replace("_", "-"): value for name, value in headers.items()}), outcome=outcome)


def verdict(failure: Failure) -> Verdict:
    return read(ended(failure), reserved=1).verdict


def test_a_call_that_was_never_made_gives_everything_back() -> None:
    assert read(None, reserved=100) == NEVER_CALLED == Evidence(verdict="unsent", used_tokens=0, called=False)


def test_an_answer_says_what_it_used_and_that_the_upstream_is_well() -> None:
    usage = Usage(input_tokens=3, output_tokens=4, total_tokens=7)
    said = read(ended(Answer(raw=b"{}", status="completed", usage=usage)), reserved=100)

    assert said == Evidence(verdict="ok", used_tokens=7, took_ms=1)
    assert read(ended(Answer(raw=b"{}", status="completed")), reserved=100).used_tokens == 100


@pytest.mark.parametrize(
    ("header", "limit"), [("600", 600.0), ("0.5", 0.5), ("0", None), ("-1", None), ("nan", None), ("many", None)]
)
def test_an_answer_may_name_a_limit(header: str, limit: float | None) -> None:
    said = read(ended(Answer(raw=b"{}", status="completed"), x_ratelimit_limit_requests=header), reserved=1)

    assert said.limit_rpm == limit


@pytest.mark.parametrize("code", [code for code in ErrorCode if code is not ErrorCode.UPSTREAM_TIMEOUT])
def test_a_failure_is_the_fleets_trouble_or_the_requests(code: ErrorCode) -> None:
    failure = replace(Failure.of(code), http_status=400)
    said = read(ended(failure), reserved=100)

    if code in TROUBLES:
        assert said.verdict == TROUBLES[code]
    elif code is ErrorCode.CANCELLED:
        assert said.verdict == "cut_short"
    else:
        answers = failure.route is Route.ANSWER and code not in SAYS_NOTHING
        assert said.verdict == ("answered" if answers else "unclear")
    assert said.code == code
    assert said.called == (code is not ErrorCode.UPSTREAM_UNREACHABLE)
    assert (said.used_tokens, said.limit_rpm) == (100, None)


@pytest.mark.parametrize("kind", [TransportKind.TOTAL_TIMEOUT, TransportKind.READ_TIMEOUT, TransportKind.WRITE_TIMEOUT])
def test_our_own_clock_says_nothing(kind: TransportKind) -> None:
    """Neither of a call without an answer nor in the midst of one."""
    assert verdict(from_transport(kind)) == "cut_short"
    assert verdict(replace(from_transport(kind), http_status=200)) == "cut_short"


@pytest.mark.parametrize("status", [408, 504, 524])
def test_a_timeout_that_the_gateway_reports_is_its_failure(status: int) -> None:
    failure = from_http(status, {}, b"<html>time out</html>")

    assert verdict(failure) == TROUBLES.get(failure.code, "answered")
    assert verdict(replace(TIMED_OUT, http_status=200, upstream=UpstreamError(code="timeout"))) == "failed"


@pytest.mark.parametrize("wait_s", [None, 0.0, 3.0])
def test_the_wait_that_was_asked_for_is_passed_on(wait_s: float | None) -> None:
    failure = replace(Failure.of(ErrorCode.RATE_LIMITED), retry_after_s=wait_s)

    assert read(ended(failure), reserved=1).retry_after_s == (wait_s or 0.0)


def test_a_call_that_we_ended_says_nothing_and_counts_as_used() -> None:
    said = read(ended(INTERRUPTED), reserved=100)

    assert (said.verdict, said.used_tokens, said.called) == ("cut_short", 100, True)
