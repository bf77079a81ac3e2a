"""Admission hears what it must know of a request, and its refusal becomes an answer, a delay, or nothing charged."""

from collections import deque
from typing import Any

import pytest
from support.processor_parts import failing, message, past_attempt, process
from support.processor_world import MINUTE_MS, World
from support.producer import body

from api_contracts import ErrorCode
from worker.admission.grants import Gate, NotAdmitted, Reason
from worker.admission.tokens import call_kind
from worker.request.decisions import Disposition

KEY: Gate = "authentication_failed"


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

    @pytest.mark.parametrize(("left_ms", "least", "most"), [(60_000, 11_000, 14_000), (12_000, 10_000, 12_000)])
    async def test_who_makes_room_stays_away_as_long_as_told(self, left_ms: int, least: int, most: int) -> None:
        """As long as the deadline allows, and without having been called."""
        why = NotAdmitted(Reason.LATER, 30, needed_ms=10_000)
        world = World(lease={"left_ms": left_ms}, grants=deque([why]))

        assert await process(world) is Disposition.DELAYED
        (parked,) = world.heard("park")
        assert least <= parked["delay_ms"] <= most

    @pytest.mark.parametrize(("code", "expected"), [("rate_limited", "rate_limited"), ("news", "deadline_exceeded")])
    async def test_a_retry_that_would_come_back_too_late_is_answered_with_its_failure(
        self, code: str, expected: str
    ) -> None:
        """As far as this release knows it."""
        lease = {"failures": 1, "left_ms": 1_500, "attempts": (past_attempt(1, code=code),)}
        world = World(lease=lease, grants=deque([NotAdmitted(Reason.LATER, 30)]))

        assert await process(world) is Disposition.FAILED
        assert world.result["error"]["code"] == expected
