"""The story of one request, at every fork: what is answered, what comes back, and what it costs."""

import asyncio
import json
from collections import deque
from dataclasses import replace
from typing import Any

import pytest
from support.harness import body
from support.processor_parts import (
    ANSWER,
    World,
    attempts,
    failing,
    message,
    process,
    reported,
)

from api_contracts import ErrorCode
from api_contracts.responses import Usage
from worker.admission.grants import Gate, NotAdmitted, Reason
from worker.failures.failure import Failure, Route
from worker.request.decisions import Disposition

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
    """Claim, admit, record, call, report, publish: the numbers agree and every call is reported once."""
    usage = Usage(input_tokens=2, output_tokens=3, total_tokens=5)
    world = World(outcomes=deque([replace(ANSWER, usage=usage)]))

    assert asyncio.run(process(world)) is Disposition.COMPLETED

    assert world.names == ["claim", "admit", "begin", "report", "complete"]
    (reported,) = world.heard("report")
    assert reported["call"].outcome.usage == usage
    assert reported["reservation"].tokens == 512 + len(world.calls[0]["body"]) // 4
    assert [call.outcome for call in world.events.calls] == [reported["call"].outcome]
    assert json.loads(world.calls[0]["body"]) == body()
    assert world.result["response"] == {"id": "resp_1"}
    assert world.result["timing"]["throttle_ms"] == 7
    assert attempts(world) == [("completed", None, False)]


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

        assert (len(world.calls), len(world.heard("admit")), len(world.heard("report"))) == (11, 11, 11)
        assert [call.outcome for call in reported(world)] == [refusal] * 10 + [ANSWER]
        assert not world.heard("park")
        assert [attempt["number"] for attempt in world.result["attempts"]] == list(range(1, 12))
        assert world.result["timing"]["throttle_ms"] == 11 * 7

    async def test_the_fleet_hears_of_it_before_the_next_admission(self) -> None:
        world = World(outcomes=deque([failing(ErrorCode.RATE_LIMITED)]))
        await process(world)

        assert world.names[:5] == ["claim", "admit", "begin", "report", "admit"]

    async def test_the_attempt_before_is_stored_with_the_next(self) -> None:
        world = World(outcomes=deque([failing(ErrorCode.RATE_LIMITED)]))
        await process(world)

        first, second = world.heard("begin")
        assert first["previous"] is None
        assert second["previous"].outcome == "throttled"


class TestDeadCredential:
    @pytest.mark.parametrize("code", [ErrorCode.AUTHENTICATION_FAILED, ErrorCode.QUOTA_EXHAUSTED])
    async def test_the_fleet_hears_of_it_and_the_request_goes_back_to_its_place(self, code: ErrorCode) -> None:
        refusal = failing(code, http_status=401)
        world = World(outcomes=deque([refusal]))

        assert await process(world) is Disposition.RELEASED

        assert [call.outcome for call in reported(world)] == [refusal]
        (released,) = world.heard("release")
        assert released["history"].code == code
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

    @pytest.mark.parametrize("gate", ["", "breaker_open"])
    async def test_it_is_reported_with_the_gate_that_it_tried(self, gate: Gate) -> None:
        world = World(grants=deque([gate]), outcomes=deque([failing(ErrorCode.UPSTREAM_OVERLOADED)]))
        await process(world)

        (told,) = world.heard("report")
        assert (told["reservation"].gate, told["call"].outcome.code) == (gate, "upstream_overloaded")

    @pytest.mark.parametrize("code", ANSWERED)
    async def test_a_probe_that_is_the_callers_fault_is_answered(self, code: ErrorCode) -> None:
        world = World(grants=deque(["breaker_open"]), outcomes=deque([failing(code)]))

        assert await process(world) is Disposition.FAILED

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
        assert parked["history"].code == code
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

    @pytest.mark.parametrize("code", ANSWERED)
    async def test_what_asking_again_cannot_change_is_answered_at_once(self, code: ErrorCode) -> None:
        attached = failing(code, response=b'{"id":"r"}')
        world = World(outcomes=deque([attached]))

        assert await process(world) is Disposition.FAILED
        assert world.result["error"]["code"] == code
        assert world.result["response"] == {"id": "r"}
        assert [call.outcome for call in reported(world)] == [attached]


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
