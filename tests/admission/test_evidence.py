"""What a finished call says of the upstream, and what stays with its request."""

from dataclasses import replace
from typing import Any

import pytest
from support.admission_parts import answered

from api_contracts import ErrorCode
from api_contracts.responses import Usage
from worker.admission.evidence import NEVER_CALLED, Evidence, read
from worker.admission.grants import Gate
from worker.failures.failure import Failure, Route
from worker.gateway.answers import Answer
from worker.gateway.upstream import Call
from worker.request.charges import INTERRUPTED


def ended(outcome: Answer | Failure, **headers: str) -> Call:
    return replace(answered({name.replace("_", "-"): value for name, value in headers.items()}), outcome=outcome)


def test_a_call_that_was_never_made_gives_everything_back() -> None:
    assert read(None, reserved=100) == NEVER_CALLED == Evidence(used_tokens=0, called=False)


def test_an_answer_says_what_it_used_and_that_the_upstream_is_well() -> None:
    usage = Usage(input_tokens=3, output_tokens=4, total_tokens=7)
    said = read(ended(Answer(raw=b"{}", status="completed", usage=usage)), reserved=100)

    assert said == Evidence(used_tokens=7, health="ok")
    assert read(ended(Answer(raw=b"{}", status="completed")), reserved=100).used_tokens == 100


@pytest.mark.parametrize(
    ("header", "limit"), [("600", 600.0), ("0.5", 0.5), ("0", None), ("-1", None), ("nan", None), ("many", None)]
)
def test_an_answer_may_name_a_limit(header: str, limit: float | None) -> None:
    said = read(ended(Answer(raw=b"{}", status="completed"), x_ratelimit_limit_requests=header), reserved=1)

    assert said.limit_rpm == limit


@pytest.mark.parametrize("code", ErrorCode)
def test_every_failure_says_one_thing_of_the_upstream_at_most(code: ErrorCode) -> None:
    """Throttling slows, a dead credential shuts its gate, the gateway's own trouble counts towards the breaker."""
    failure = Failure.of(code)
    said = read(ended(failure), reserved=100)

    assert said.throttled == (failure.route is Route.THROTTLE)
    assert bool(said.gate) == (failure.route is Route.CREDENTIAL)
    assert said.code == (code if said.gate else "")
    assert said.called == (code is not ErrorCode.UPSTREAM_UNREACHABLE)
    assert (said.used_tokens, said.limit_rpm) == (100, None)
    assert [said.throttled, bool(said.gate), said.health == "failed"].count(True) <= 1


@pytest.mark.parametrize("wait_s", [None, 0.0, 3.0])
def test_the_wait_that_was_asked_for_is_passed_on(wait_s: float | None) -> None:
    failure = replace(Failure.of(ErrorCode.RATE_LIMITED), retry_after_s=wait_s)

    assert read(ended(failure), reserved=1).retry_after_s == (wait_s or 0.0)


@pytest.mark.parametrize(("code", "kept"), [(ErrorCode.UPSTREAM_OVERLOADED, True), (ErrorCode.INVALID_REQUEST, False)])
def test_a_probe_that_meets_a_broken_gateway_keeps_its_gate_shut(code: Any, *, kept: bool) -> None:
    said = read(ended(Failure.of(code)), reserved=1, probing="breaker_open")

    assert said.gate == ("breaker_open" if kept else "")


@pytest.mark.parametrize("probing", ["", "breaker_open", "authentication_failed"])
def test_a_call_that_we_ended_says_nothing_and_counts_as_used(probing: Gate) -> None:
    assert read(ended(INTERRUPTED), reserved=100, probing=probing) == Evidence(used_tokens=100)
