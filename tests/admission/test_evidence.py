"""What a call says of the upstream: its own failures count, a caller's do not."""

from dataclasses import replace

import pytest

from api_contracts import ErrorCode
from api_contracts.responses import Usage
from worker.admission.evidence import UPSTREAM_FAILURES, Evidence, evidence_of
from worker.admission.grants import Gate, UpstreamVerdict
from worker.failures.failure import Failure, Route
from worker.gateway.answers import Answer
from worker.gateway.upstream import Call
from worker.request.execution import INTERRUPTED

ANSWER = Answer(raw=b"{}", status="completed")
LOCKED = {ErrorCode.AUTHENTICATION_FAILED: "authentication_failed", ErrorCode.QUOTA_EXHAUSTED: "quota_exhausted"}


def call(outcome: Answer | Failure) -> Call:
    return Call(outcome=outcome, http_status=200, upstream_request_id=None, duration_ms=1, headers={})


def evidence(code: ErrorCode, *, gate: Gate = "") -> Evidence:
    return evidence_of(call(Failure.of(code)), gate=gate)


def test_an_answer_says_what_it_used() -> None:
    usage = Usage(input_tokens=2, output_tokens=3, total_tokens=5)

    assert evidence_of(call(replace(ANSWER, usage=usage))) == Evidence(answered=True, used_tokens=5, verdict="ok")


def test_without_usage_what_it_used_is_unknown() -> None:
    assert evidence_of(call(ANSWER)).used_tokens is None


@pytest.mark.parametrize("code", UPSTREAM_FAILURES)
def test_the_upstreams_own_failures_count_against_it(code: ErrorCode) -> None:
    assert evidence(code).verdict == "failed"


@pytest.mark.parametrize("code", [code for code in ErrorCode if code not in UPSTREAM_FAILURES])
def test_other_failures_never_do(code: ErrorCode) -> None:
    """What is answered shows that the gateway works, unless it is about our account or our own doing."""
    silent = {ErrorCode.PERMISSION_DENIED, ErrorCode.CANCELLED}
    answered = Failure.of(code).route is Route.ANSWER and code not in silent
    expected: UpstreamVerdict = "ok" if answered else ""

    assert evidence(code).verdict == expected


@pytest.mark.parametrize("code", list(ErrorCode))
def test_only_what_never_left_costs_nothing(code: ErrorCode) -> None:
    assert evidence(code).sent is (code is not ErrorCode.UPSTREAM_UNREACHABLE)


@pytest.mark.parametrize("code", list(ErrorCode))
def test_only_a_throttled_call_pauses_the_fleet(code: ErrorCode) -> None:
    assert evidence(code).throttled is (code is ErrorCode.RATE_LIMITED)


def test_the_pause_is_the_one_that_was_asked_for() -> None:
    throttled = replace(Failure.of(ErrorCode.RATE_LIMITED), retry_after_s=3.0)

    assert evidence_of(call(throttled)).retry_after_s == 3.0


@pytest.mark.parametrize("code", list(ErrorCode))
def test_a_refused_credential_shuts_its_gate_and_nothing_else_shuts_one(code: ErrorCode) -> None:
    assert (evidence(code).gate, evidence(code).code) == (LOCKED.get(code, ""), code)


@pytest.mark.parametrize("code", list(ErrorCode))
def test_a_probe_keeps_its_gate_shut_only_if_the_upstream_failed(code: ErrorCode) -> None:
    kept = "breaker_open" if code in UPSTREAM_FAILURES else LOCKED.get(code, "")

    assert evidence(code, gate="breaker_open").gate == kept


def test_a_call_that_we_ended_says_nothing_and_counts_as_used() -> None:
    assert evidence_of(call(INTERRUPTED), gate="breaker_open") == Evidence(code=ErrorCode.CANCELLED)
