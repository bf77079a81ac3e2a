"""The story of one request, at every fork: what is answered, what comes back, and what it costs."""

import asyncio
import json
from collections import deque
from dataclasses import replace
from typing import Any

import pytest
from support.processor_parts import (
    ANSWER,
    World,
    attempts,
    failing,
    message,
    process,
)
from support.producer import body

from api_contracts import ErrorCode
from api_contracts.responses import Usage
from worker.admission.client import Gate, NotAdmitted, Reason
from worker.failures.failure import Failure, Route
from worker.request.processor import Disposition

KEY: Gate = "authentication_failed"
RETRIED = [code for code in ErrorCode if Failure.of(code).route is Route.RETRY]
ANSWERED = [
    ErrorCode.INVALID_REQUEST,
    ErrorCode.CONTEXT_LENGTH_EXCEEDED,
    ErrorCode.REQUEST_TOO_LARGE,
    ErrorCode.CONTENT_REJECTED,
    ErrorCode.MODEL_UNAVAILABLE,
    ErrorCode.PERMISSION_DENIED,
]


def test_everything_in_order() -> None:
    """Claim, admit, record, call, settle, publish: the numbers agree and every permit is settled once."""
    usage = Usage(input_tokens=2, output_tokens=3, total_tokens=5)
    world = World(outcomes=deque([replace(ANSWER, usage=usage)]))

    assert asyncio.run(process(world)) is Disposition.COMPLETED

    assert world.names == ["claim", "admit", "begin", "settle", "learn", "complete"]
    (settled,) = world.heard("settle")
    assert (settled["called"], settled["verdict"]) == (True, "ok")
    assert settled["unused"] == 512 + len(world.calls[0]["body"]) // 4 - 5
    assert json.loads(world.calls[0]["body"]) == body()
    assert world.result["response"] == {"id": "resp_1"}
    assert world.result["timing"]["throttle_ms"] == 7
    assert attempts(world) == [("completed", None, False)]


async def test_without_usage_the_reservation_counts_as_used() -> None:
    world = World()
    await process(world)

    assert world.heard("settle")[0]["unused"] == 0


async def test_an_incomplete_answer_is_published_with_its_reason() -> None:
    cut = replace(ANSWER, status="incomplete", failure=Failure.of(ErrorCode.INCOMPLETE_MAX_TOKENS))
    world = World(outcomes=deque([cut]))

    assert await process(world) is Disposition.INCOMPLETE
    assert world.result["error"]["code"] == "incomplete_max_tokens"
    assert world.result["response"] == {"id": "resp_1"}


class TestThrottle:
    async def test_it_waits_again_right_here_and_spends_no_attempt(self) -> None:
        refusal = failing(ErrorCode.RATE_LIMITED, retry_after_s=3.0, http_status=429)
        world = World(outcomes=deque([refusal] * 10))

        assert await process(world, message({"max_attempts": 1})) is Disposition.COMPLETED

        assert (len(world.calls), len(world.heard("admit")), len(world.heard("settle"))) == (11, 11, 11)
        assert [told["retry_after_s"] for told in world.heard("throttled")] == [3.0] * 10
        assert not world.heard("park")
        assert [attempt["number"] for attempt in world.result["attempts"]] == list(range(1, 12))
        assert world.result["timing"]["throttle_ms"] == 11 * 7

    async def test_it_says_nothing_of_the_upstreams_health(self) -> None:
        world = World(outcomes=deque([failing(ErrorCode.RATE_LIMITED)]))
        await process(world)

        assert [told["verdict"] for told in world.heard("settle")] == ["", "ok"]

    async def test_the_permit_is_settled_before_the_fleet_is_slowed(self) -> None:
        world = World(outcomes=deque([failing(ErrorCode.RATE_LIMITED)]))
        await process(world)

        assert world.names[:6] == ["claim", "admit", "begin", "settle", "throttled", "admit"]

    async def test_the_attempt_before_is_stored_with_the_next(self) -> None:
        world = World(outcomes=deque([failing(ErrorCode.RATE_LIMITED)]))
        await process(world)

        first, second = world.heard("begin")
        assert first["previous"] is None
        assert json.loads(second["previous"].attempt)["outcome"] == "throttled"


class TestDeadCredential:
    @pytest.mark.parametrize(
        ("code", "gate"),
        [(ErrorCode.AUTHENTICATION_FAILED, KEY), (ErrorCode.QUOTA_EXHAUSTED, "quota_exhausted")],
    )
    async def test_the_gate_shuts_and_the_request_goes_back_to_its_place(self, code: ErrorCode, gate: Gate) -> None:
        world = World(outcomes=deque([failing(code, http_status=401)]))

        assert await process(world) is Disposition.RELEASED

        (refused,) = world.heard("refused")
        assert (refused["gate"], refused["code"]) == (gate, code)
        assert world.heard("settle")[0]["verdict"] == ""
        (released,) = world.heard("release")
        assert json.loads(released["history"].attempt)["code"] == code
        assert not world.heard("park")
        assert not world.heard("complete")

    async def test_out_of_patience_it_is_answered(self) -> None:
        world = World(lease={"age_ms": 31_000}, outcomes=deque([failing(ErrorCode.AUTHENTICATION_FAILED)]))

        assert await process(world) is Disposition.FAILED
        assert (world.result["error"]["code"], world.result["error"]["retryable"]) == (KEY, True)

    async def test_a_patient_lane_waits_until_the_deadline(self) -> None:
        world = World(lease={"age_ms": 31_000}, outcomes=deque([failing(ErrorCode.AUTHENTICATION_FAILED)]))

        assert await process(world, lane="batch") is Disposition.RELEASED


class TestProbe:
    @pytest.mark.parametrize("code", RETRIED)
    async def test_a_failed_probe_spends_no_attempt(self, code: ErrorCode) -> None:
        """Somebody has to try the gateway; it is not that request's failure."""
        world = World(grants=deque(["breaker_open"]), outcomes=deque([failing(code)]), lease={"failures": 2})

        assert await process(world) is Disposition.RELEASED
        assert not world.heard("park")

    async def test_a_broken_gateway_keeps_its_gate_shut(self) -> None:
        world = World(grants=deque(["breaker_open"]), outcomes=deque([failing(ErrorCode.UPSTREAM_OVERLOADED)]))
        await process(world)

        (refused,) = world.heard("refused")
        assert (refused["gate"], refused["code"]) == ("breaker_open", "upstream_overloaded")

    async def test_a_failed_call_that_was_no_probe_shuts_nothing_by_itself(self) -> None:
        world = World(outcomes=deque([failing(ErrorCode.UPSTREAM_OVERLOADED)]))
        await process(world)

        assert not world.heard("refused")
        assert world.heard("settle")[0]["verdict"] == "failed"

    @pytest.mark.parametrize("code", ANSWERED)
    async def test_a_probe_that_is_the_callers_fault_is_answered(self, code: ErrorCode) -> None:
        world = World(grants=deque(["breaker_open"]), outcomes=deque([failing(code)]))

        assert await process(world) is Disposition.FAILED
        assert not world.heard("refused")

    async def test_out_of_patience_a_failed_probe_counts_like_any_call(self) -> None:
        world = World(
            lease={"age_ms": 31_000, "failures": 2},
            grants=deque(["breaker_open"]),
            outcomes=deque([failing(ErrorCode.UPSTREAM_OVERLOADED)]),
        )

        assert await process(world) is Disposition.FAILED
        assert world.result["error"]["code"] == "upstream_overloaded"


class TestRetry:
    @pytest.mark.parametrize("code", RETRIED)
    @pytest.mark.parametrize("failures", [0, 1])
    async def test_it_is_parked_with_one_failure_more(self, code: ErrorCode, failures: int) -> None:
        world = World(outcomes=deque([failing(code, max_attempts=None)]), lease={"failures": failures})

        assert await process(world) is Disposition.RETRY_SCHEDULED

        (parked,) = world.heard("park")
        assert parked["failures"] == failures + 1
        assert 0 <= parked["delay_ms"] <= 2_000 * 2**failures
        assert json.loads(parked["history"].attempt)["code"] == code
        assert world.heard("throttle") == [{"ms": 7}]

    @pytest.mark.parametrize(("envelope", "failures"), [({}, 2), ({"max_attempts": 1}, 0), ({"max_attempts": 7}, 6)])
    async def test_the_last_attempt_is_answered_with_its_failure(self, envelope: Any, failures: int) -> None:
        world = World(
            outcomes=deque([failing(ErrorCode.UPSTREAM_ERROR, http_status=500)]), lease={"failures": failures}
        )

        assert await process(world, message(envelope)) is Disposition.FAILED
        error = world.result["error"]
        assert (error["code"], error["retryable"], error["http_status"]) == ("upstream_error", True, 500)

    async def test_throttling_before_it_costs_none_of_the_attempts(self) -> None:
        world = World(outcomes=deque([failing(ErrorCode.RATE_LIMITED)] * 5 + [failing(ErrorCode.UPSTREAM_ERROR)]))

        assert await process(world) is Disposition.RETRY_SCHEDULED
        assert world.heard("park")[0]["failures"] == 1

    async def test_a_retry_that_would_miss_the_deadline_is_answered_now(self) -> None:
        world = World(outcomes=deque([failing(ErrorCode.UPSTREAM_ERROR, retry_after_s=120.0)]))

        assert await process(world) is Disposition.FAILED
        assert world.result["error"]["code"] == "deadline_exceeded"

    async def test_a_call_that_was_never_sent_costs_no_budget(self) -> None:
        world = World(outcomes=deque([failing(ErrorCode.UPSTREAM_UNREACHABLE)]))
        await process(world)

        (settled,) = world.heard("settle")
        assert (settled["called"], settled["verdict"]) == (False, "failed")

    @pytest.mark.parametrize("code", ANSWERED)
    async def test_what_asking_again_cannot_change_is_answered_at_once(self, code: ErrorCode) -> None:
        attached = failing(code, response=b'{"id":"r"}')
        world = World(outcomes=deque([attached]))

        assert await process(world) is Disposition.FAILED
        assert world.result["error"]["code"] == code
        assert world.result["response"] == {"id": "r"}
        assert world.heard("settle")[0]["verdict"] == ("" if code is ErrorCode.PERMISSION_DENIED else "ok")


class TestNotAdmitted:
    @pytest.mark.parametrize("code", [KEY, "quota_exhausted", "upstream_error", "upstream_overloaded"])
    async def test_out_of_patience_it_is_answered_with_the_states_code(self, code: str) -> None:
        world = World(grants=deque([NotAdmitted(Reason.GATE, 30_000, code)]))

        assert await process(world) is Disposition.FAILED
        assert (world.result["error"]["code"], world.result["error"]["retryable"]) == (code, True)
        assert world.result["attempts"] == []
        assert world.calls == []

    @pytest.mark.parametrize(
        ("reason", "code", "retryable"),
        [(Reason.TIME, "rate_limited", True), (Reason.NEVER, "request_too_large", False)],
    )
    async def test_a_wait_that_cannot_end_well_is_an_answer(
        self, reason: Reason, code: str, *, retryable: bool
    ) -> None:
        world = World(grants=deque([NotAdmitted(reason, 9)]))

        assert await process(world) is Disposition.FAILED
        assert (world.result["error"]["code"], world.result["error"]["retryable"]) == (code, retryable)
        assert world.result["timing"]["throttle_ms"] == 9

    @pytest.mark.parametrize(
        ("lane", "age_ms", "expected"),
        [("interactive", 10_000, 20.0), ("interactive", 40_000, -10.0), ("batch", 40_000, float("inf"))],
    )
    async def test_patience_counts_from_enqueueing(self, lane: str, age_ms: int, expected: float) -> None:
        world = World(lease={"age_ms": age_ms})
        await process(world, lane=lane)

        assert world.heard("admit")[0]["patience_s"] == pytest.approx(expected, abs=0.5)
