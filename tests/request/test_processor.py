"""A request is called, reported and answered; a failed call is tried again at its price, until it is the answer."""

import asyncio
import json
from collections import deque
from dataclasses import replace
from typing import Any

import pytest
from support.processor_parts import POLICY, attempts, failing, message, past_attempt, process, reported
from support.processor_world import ANSWER, World
from support.producer import body

from api_contracts import ErrorCode
from api_contracts.responses import Usage
from worker.admission.grants import Gate
from worker.failures.failure import Failure, Route
from worker.request.decisions import Disposition

PATIENT = {"left_ms": 3_600_000}
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


class TestThrottledLikeTheFleet:
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


class TestRefusedLikeTheFleet:
    """Admission believes the refusal: it is nobody's own."""

    @pytest.mark.parametrize("code", [ErrorCode.AUTHENTICATION_FAILED, ErrorCode.QUOTA_EXHAUSTED])
    @pytest.mark.parametrize("lane", ["interactive", "batch"])
    async def test_it_goes_behind_those_that_wait_and_spends_nothing(self, code: ErrorCode, lane: str) -> None:
        """At the head of its lane, it would be the next to call; its patience is admission's matter."""
        refusal = failing(code, http_status=401)
        world = World(lease={"age_ms": 31_000, "failures": 2, "own": 3}, outcomes=deque([refusal]))

        assert await process(world, lane=lane) is Disposition.RELEASED

        assert [call.outcome for call in reported(world)] == [refusal]
        (released,) = world.heard("release")
        assert (released["behind"], released["attempt"].code) == (True, code)
        assert not world.heard("park")
        assert not world.heard("complete")


class TestRefusedAlone:
    """No other request meets what this one meets: it is charged, waits alone and is answered."""

    @pytest.mark.parametrize(
        ("code", "own"),
        [(ErrorCode.AUTHENTICATION_FAILED, 2), (ErrorCode.QUOTA_EXHAUSTED, 0), (ErrorCode.RATE_LIMITED, 6)],
    )
    async def test_it_is_parked_with_one_refusal_more_and_no_failure(self, code: ErrorCode, own: int) -> None:
        world = World(shared=False, outcomes=deque([failing(code)]), lease={"own": own, "failures": 1, **PATIENT})

        assert await process(world, message({"max_attempts": 2})) is Disposition.RETRY_SCHEDULED

        (parked,) = world.heard("park")
        assert (parked["failures"], parked["own"], parked["attempt"].code) == (1, own + 1, code)
        longest_ms = min(120_000, 2_000 * 2 ** (own + 1))
        assert longest_ms / 2 <= parked["delay_ms"] <= longest_ms

    @pytest.mark.parametrize(
        ("code", "own"),
        [(ErrorCode.AUTHENTICATION_FAILED, 3), (ErrorCode.QUOTA_EXHAUSTED, 3), (ErrorCode.RATE_LIMITED, 7)],
    )
    async def test_the_last_refusal_is_the_answer(self, code: ErrorCode, own: int) -> None:
        world = World(shared=False, outcomes=deque([failing(code, http_status=402)]), lease={"own": own})

        assert await process(world) is Disposition.FAILED
        error = world.result["error"]
        assert (error["code"], error["retryable"], error["http_status"]) == (code, True, 402)

    async def test_a_refusal_of_its_own_price_is_the_answer_at_once(self) -> None:
        world = World(shared=False, outcomes=deque([failing(ErrorCode.QUOTA_EXHAUSTED, scope="request")]))

        assert await process(world) is Disposition.FAILED
        assert world.result["error"]["code"] == "quota_exhausted"

    async def test_without_time_for_another_try_the_answer_names_the_refusal(self) -> None:
        """And not the deadline, which would hide it."""
        world = World(shared=False, outcomes=deque([failing(ErrorCode.RATE_LIMITED, retry_after_s=70.0)]))

        assert await process(world) is Disposition.FAILED
        assert world.result["error"]["code"] == "rate_limited"


class TestProbe:
    @pytest.mark.parametrize("code", RETRIED)
    @pytest.mark.parametrize("gate", ["", "breaker_open"])
    async def test_a_failed_probe_is_charged_like_any_call(self, code: ErrorCode, gate: Gate) -> None:
        """Or one request could probe without end, and each probe may be billed."""
        world = World(grants=deque([gate]), outcomes=deque([failing(code, max_attempts=None)]), lease={"failures": 1})

        assert await process(world) is Disposition.RETRY_SCHEDULED
        assert [(parked["failures"], parked["own"]) for parked in world.heard("park")] == [(2, 0)]

    @pytest.mark.parametrize("code", RETRIED)
    async def test_with_one_attempt_a_failed_probe_is_the_only_call(self, code: ErrorCode) -> None:
        world = World(grants=deque(["breaker_open"]), outcomes=deque([failing(code, http_status=524)]))

        assert await process(world, message({"max_attempts": 1})) is Disposition.FAILED
        assert (world.result["error"]["code"], len(world.calls)) == (code, 1)

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


class TestRetry:
    @pytest.mark.parametrize("code", RETRIED)
    @pytest.mark.parametrize("failures", [0, 1])
    async def test_it_is_parked_with_one_failure_more(self, code: ErrorCode, failures: int) -> None:
        world = World(outcomes=deque([failing(code, max_attempts=None)]), lease={"failures": failures})

        assert await process(world) is Disposition.RETRY_SCHEDULED

        (parked,) = world.heard("park")
        assert parked["failures"] == failures + 1
        assert 0 <= parked["delay_ms"] <= 2_000 * 2**failures
        assert parked["attempt"].code == code
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


async def test_attempts_go_on_counting_where_the_last_worker_stopped() -> None:
    world = World(lease={"attempts": (past_attempt(2, "started"), past_attempt(1)), "throttle_ms": 100})
    await process(world)

    assert [attempt["number"] for attempt in world.result["attempts"]] == [1, 2, 3]
    assert world.result["attempts"][1]["outcome"] == "interrupted"
    assert world.result["timing"]["throttle_ms"] == 107
    assert world.result["timing"]["upstream_ms"] == 3 + 3 + 5


async def test_the_result_is_kept_as_long_as_the_policy_says() -> None:
    world = World()
    await process(world)

    assert world.heard("complete")[0]["kept_ms"] == POLICY.result_ttl.total_seconds() * 1000
