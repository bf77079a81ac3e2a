"""The story of one request, at every fork: what is answered, what comes back, and what it costs."""

import asyncio
import json
from collections import deque
from dataclasses import replace
from typing import Any

import pytest
from support.processor_parts import (
    ANSWER,
    MINUTE_MS,
    World,
    attempts,
    failing,
    message,
    past_attempt,
    process,
    reported,
)
from support.producer import body

from api_contracts import ErrorCode
from api_contracts.responses import Usage
from worker.admission.grants import Gate, NotAdmitted, Reason
from worker.admission.tokens import call_kind
from worker.failures.failure import Failure, Route
from worker.request.decisions import Disposition

PATIENT = {"left_ms": 3_600_000}
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

    @pytest.mark.parametrize("last", [None, "upstream_error"])
    async def test_a_call_that_cannot_end_in_time_is_not_made(self, last: str | None) -> None:
        """The answer says how much time was left; what the gateway said before stays with it."""
        earlier = (past_attempt(1, code=last),) if last else ()
        why = NotAdmitted(Reason.LATE, 30, needed_ms=9_123, left_ms=4_000)
        world = World(lease={"attempts": earlier, "failures": len(earlier)}, grants=deque([why]))

        assert await process(world) is Disposition.FAILED
        error = world.result["error"]
        assert (error["code"], error["message"]) == (
            "deadline_exceeded",
            "not started: 4 s left, calls like it take 9.12 s",
        )
        assert (world.calls, len(world.result["attempts"])) == ([], len(earlier))

    async def test_a_retry_beyond_the_fleets_budget_comes_back_uncharged(self) -> None:
        world = World(lease={"failures": 1, "own": 2}, grants=deque([NotAdmitted(Reason.LATER, 30)]))

        assert await process(world) is Disposition.DELAYED
        (parked,) = world.heard("park")
        assert (parked["failures"], parked["own"]) == (1, 2)
        assert 1_000 <= parked["delay_ms"] <= 4_000

    @pytest.mark.parametrize(("code", "expected"), [("rate_limited", "rate_limited"), ("news", "deadline_exceeded")])
    async def test_a_retry_that_would_come_back_too_late_is_answered_with_its_failure(
        self, code: str, expected: str
    ) -> None:
        """As far as this release knows it."""
        lease = {"failures": 1, "left_ms": 1_500, "attempts": (past_attempt(1, code=code),)}
        world = World(lease=lease, grants=deque([NotAdmitted(Reason.LATER, 30)]))

        assert await process(world) is Disposition.FAILED
        assert world.result["error"]["code"] == expected


class TestAsking:
    """Admission is told of each request what it must know to judge fairly."""

    async def test_a_fresh_request_was_never_heard(self) -> None:
        world = World(lease={"age_ms": 10_000})
        await process(world, message({"tenant": "acme", "body": body(max_output_tokens=1000)}))

        ask = world.heard("admit")[0]["ask"]
        assert (ask.tenant, ask.token, ask.failures, ask.own, ask.refusals) == ("acme", "t", 0, 0, 0)
        assert ask.tokens == pytest.approx(1000 + len(world.calls[0]["body"]) / 4, abs=1)
        assert ask.call_kind == call_kind("gpt-5.4-mini", 1000)
        assert ask.ends_ms - ask.enqueued_at_ms == 10_000 + MINUTE_MS

    @pytest.mark.parametrize(("lane", "expected_ms"), [("interactive", 30_000), ("batch", float("inf"))])
    @pytest.mark.parametrize("age_ms", [0, 40_000])
    async def test_patience_is_a_duration(self, lane: str, expected_ms: float, age_ms: int) -> None:
        """Admission counts it from the moment at which the gate was confirmed, or from enqueueing if that was later."""
        world = World(lease={"age_ms": age_ms})
        await process(world, lane=lane)

        assert world.heard("admit")[0]["ask"].patience_ms == expected_ms

    async def test_what_its_calls_met_before_is_told_whoever_made_them(self) -> None:
        codes = ("rate_limited", "upstream_error", None, "authentication_failed")
        earlier = tuple(past_attempt(number, code=code) for number, code in enumerate(codes, 1))
        refusal = failing(ErrorCode.RATE_LIMITED)
        world = World(lease={"attempts": earlier, "failures": 1, "own": 1}, outcomes=deque([refusal]))
        await process(world)

        asks = [told["ask"] for told in world.heard("admit")]
        assert [(ask.failures, ask.own, ask.refusals) for ask in asks] == [(1, 1, 2), (1, 1, 3)]

    async def test_the_same_body_has_the_same_fingerprint(self) -> None:
        asks: list[Any] = []
        for prompt in ("a", "a", "b"):
            world = World()
            await process(world, message({"body": body(prompt)}))
            asks.append(world.heard("admit")[0]["ask"].body)

        assert asks[0] == asks[1] != asks[2]
