"""A request ends early in these ways: interrupted, superseded, not worth a call, or watched by a reader."""

import asyncio
from collections import deque
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from support.processor_parts import (
    ANSWER,
    MINUTE_MS,
    POLICY,
    World,
    attempts,
    execution_of,
    failing,
    interrupted,
    message,
    past_attempt,
    process,
    processor,
    reported,
)
from support.producer import body

from api_contracts import ErrorCode
from worker.admission.grants import Gate, NotAdmitted, Reason
from worker.queue.claims import Refusal, Standing, WriteOutcome
from worker.request.charges import INTERRUPTED
from worker.request.decisions import REFUSED, Disposition
from worker.request.execution import Interruption
from worker.request.policy import Policy
from worker.storage.scripts import ScriptError

CREATED = b'{"type":"response.created","response":{}}'
DELTA = b'{"type":"response.output_text.delta","delta":"Hel"}'


def refuse() -> None:
    raise ScriptError("OOM")


class TestInterruption:
    async def test_draining_while_waiting_hands_it_back_untouched(self) -> None:
        world = World(grants=deque([None]))

        assert await interrupted(world, Interruption.DRAINING, world.admitting) is Disposition.RELEASED
        assert world.names == ["claim", "admit", "release"]
        assert world.heard("release")[0]["attempt"] is None

    async def test_draining_in_a_call_hands_it_back_as_maybe_billed(self) -> None:
        world = World(outcomes=deque([None]))

        assert await interrupted(world, Interruption.DRAINING, world.calling) is Disposition.RELEASED
        assert world.names == ["claim", "admit", "begin", "report", "release"]
        assert [call.outcome for call in reported(world)] == [INTERRUPTED]
        attempt = world.heard("release")[0]["attempt"]
        assert (attempt.outcome, attempt.maybe_billed) == ("interrupted", True)
        assert world.events.calls == []

    async def test_cancelled_while_waiting_it_is_answered(self) -> None:
        world = World(grants=deque([None]))

        assert await interrupted(world, Interruption.CANCELLED, world.admitting) is Disposition.FAILED
        assert (world.result["error"]["code"], world.result["attempts"]) == ("cancelled", [])

    async def test_cancelled_in_a_call_it_is_answered_with_its_history(self) -> None:
        world = World(outcomes=deque([None]))

        assert await interrupted(world, Interruption.CANCELLED, world.calling) is Disposition.FAILED
        assert world.result["error"]["code"] == "cancelled"
        assert attempts(world) == [("interrupted", None, True)]
        assert len(world.heard("report")) == 1

    @pytest.mark.parametrize("why", list(Interruption))
    async def test_before_the_call_is_recorded_it_costs_nothing(self, why: Interruption) -> None:
        """The grant was there already: it is given back, and no attempt is on record."""
        execution = execution_of()
        world = World(on_admit=lambda: setattr(execution, "interruption", why))
        await processor(world).process(execution)

        assert reported(world) == [None]
        assert "begin" not in world.names
        assert world.calls == []

    @pytest.mark.parametrize("why", list(Interruption))
    async def test_between_record_and_call_nothing_is_sent(self, why: Interruption) -> None:
        world = World()
        execution = execution_of()
        world.on_begin = lambda: execution.interrupt(why)

        await processor(world).process(execution)

        assert world.calls == []
        assert len(world.heard("report")) == 1

    async def test_an_answer_that_arrived_is_published_even_when_draining(self) -> None:
        execution = execution_of(message({"body": body(stream=True)}))
        world = World(on_flush=lambda: execution.interrupt(Interruption.DRAINING))

        assert await processor(world).process(execution) is Disposition.COMPLETED

    async def test_a_cancellation_that_is_no_interruption_goes_through(self) -> None:
        """The loop is ending; nothing may swallow that."""
        world = World(outcomes=deque([None]))
        task = asyncio.create_task(process(world))
        await world.calling.wait()
        task.cancel()

        with pytest.raises(asyncio.CancelledError):
            await task


class TestSuperseded:
    async def test_a_lease_lost_before_the_call_makes_none_and_gives_the_grant_back(self) -> None:
        world = World(verdict=WriteOutcome.SUPERSEDED)

        assert await process(world) is Disposition.SUPERSEDED
        assert world.calls == []
        assert reported(world) == [None]

    @pytest.mark.parametrize("verdict", [WriteOutcome.SUPERSEDED, WriteOutcome.DUPLICATE])
    @pytest.mark.parametrize(
        "outcome", [ANSWER, failing(ErrorCode.UPSTREAM_ERROR), failing(ErrorCode.CONTENT_REJECTED)]
    )
    async def test_a_lease_lost_in_the_call_is_told_as_such(self, verdict: WriteOutcome, outcome: Any) -> None:
        world = World(outcomes=deque([outcome]))
        task = asyncio.create_task(process(world))
        await world.calling.wait()
        world.verdict = verdict

        assert await task is Disposition.SUPERSEDED
        assert [call.outcome for call in reported(world)] == [outcome]

    @pytest.mark.parametrize("refusal", [r for r in Refusal if isinstance(REFUSED[r], Disposition)])
    async def test_what_somebody_else_runs_or_ran_is_left_alone(self, refusal: Refusal) -> None:
        world = World(lease=refusal)

        assert await process(world) == refusal.lower()
        assert world.names == ["claim"]

    @pytest.mark.parametrize("refusal", [r for r in Refusal if not isinstance(REFUSED[r], Disposition)])
    async def test_a_newcomer_that_cannot_run_is_answered_without_touching_the_first(self, refusal: Refusal) -> None:
        world = World(lease=refusal)

        assert await process(world) is Disposition.FAILED
        assert world.names == ["claim", "answer"]
        assert world.heard("answer")[0]["result"]["error"]["code"] == "duplicate_conflict"


class TestObstacles:
    @pytest.mark.parametrize(
        ("standing", "code"), [(Standing.CANCELLED, "cancelled"), (Standing.EXPIRED, "deadline_exceeded")]
    )
    async def test_what_need_not_run_any_more_is_answered_without_a_call(self, standing: Standing, code: str) -> None:
        world = World(lease={"standing": standing})

        assert await process(world) is Disposition.FAILED
        assert world.result["error"]["code"] == code
        assert world.names == ["claim", "complete"]

    async def test_a_wrong_request_is_answered_with_every_fault(self) -> None:
        world = World()

        assert await process(world, message({"body": {"model": "gpt-4", "input": []}})) is Disposition.FAILED
        error = world.result["error"]
        assert error["code"] == "invalid_request"
        assert len(error["violations"]) >= 2

    async def test_what_names_nobody_is_a_dead_letter(self) -> None:
        world = World()

        assert await process(world, b"rubbish") is Disposition.DEAD_LETTERED
        assert world.names == ["bury"]

    async def test_an_eta_is_waited_for_in_redis(self) -> None:
        eta = datetime.now(UTC) + timedelta(seconds=20)
        world = World(lease={"failures": 1})

        assert await process(world, message(headers={"eta": eta.isoformat()})) is Disposition.DELAYED
        (parked,) = world.heard("park")
        assert parked["delay_ms"] == pytest.approx(20_000, abs=2_000)
        assert parked["failures"] == 1

    @pytest.mark.parametrize(("own", "left_ms", "expected"), [(None, MINUTE_MS, 30), (5, MINUTE_MS, 5), (50, 2_000, 2)])
    async def test_a_call_lasts_no_longer_than_its_timeout_nor_the_deadline(
        self, own: float | None, left_ms: int, expected: float
    ) -> None:
        world = World(lease={"left_ms": left_ms})
        await process(world, message({"timeout": own} if own else {}))

        assert world.calls[0]["timeout_s"] == pytest.approx(expected, abs=0.5)
        assert world.heard("admit")[0]["within_s"] == pytest.approx(left_ms / 1000, abs=0.5)

    async def test_a_wait_never_begins_with_negative_time(self) -> None:
        world = World(lease={"left_ms": -500}, grants=deque([NotAdmitted(Reason.TIME, 0)]))
        await process(world)

        assert world.heard("admit")[0]["within_s"] == 0


async def test_a_bug_is_answered_and_told() -> None:
    world = World(outcomes=deque([ZeroDivisionError("secret prompt")]))

    assert await process(world) is Disposition.FAILED
    assert world.result["error"]["code"] == "internal_error"
    assert "secret" not in world.heard("complete")[0]["answer"].result.decode()
    assert [type(bug) for bug in world.events.bugs] == [ZeroDivisionError]


class TestABug:
    """Wherever it strikes between the message and its answer, the caller gets one, and the bug is told."""

    @pytest.mark.parametrize("port", ["claim", "admit", "begin", "create", "open", "flushed"])
    async def test_it_is_answered_wherever_it_strikes(self, port: str, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(*_: Any, **__: Any) -> Any:
            raise ZeroDivisionError("secret prompt")

        world = World()
        monkeypatch.setattr(world, port, broken)

        assert await process(world, message({"body": body(stream=True)})) is Disposition.FAILED
        told = world.heard("answer") or [{"result": world.result}]
        assert [each["result"]["error"]["code"] for each in told] == ["internal_error"]
        assert [type(bug) for bug in world.events.bugs] == [ZeroDivisionError]

    @pytest.mark.parametrize("decision", ["before_call", "after_call", "patience_s", "timeout_s"])
    async def test_it_is_answered_whichever_decision_fails(
        self, decision: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(*_: Any, **__: Any) -> Any:
            raise KeyError("*")

        world = World()
        monkeypatch.setattr(Policy, decision, broken)

        assert await process(world) is Disposition.FAILED
        assert world.result["error"]["code"] == "internal_error"

    async def test_history_that_cannot_be_read_is_answered(self) -> None:
        world = World(lease={"attempts": (b"rubbish",)})

        assert await process(world) is Disposition.FAILED
        assert (world.result["error"]["code"], world.result["attempts"]) == ("internal_error", [])

    async def test_the_ledgers_refusal_is_not_answered_for_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A write that is refused now may succeed later; the lease brings the request back."""

        async def refuse(*_: Any, **__: Any) -> Any:
            raise ScriptError("WRONGTYPE")

        world = World()
        monkeypatch.setattr(world, "begin", refuse)

        with pytest.raises(ScriptError):
            await process(world)
        assert not world.heard("complete")


async def test_an_answer_is_published_although_its_report_meets_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()

    async def broken(*_: Any) -> bool:
        raise ZeroDivisionError

    monkeypatch.setattr(world, "report", broken)

    assert await process(world) is Disposition.COMPLETED
    assert [type(bug) for bug in world.events.bugs] == [ZeroDivisionError]


async def test_an_answer_is_published_although_its_report_is_refused() -> None:
    """It is paid for; without a result the request would be called again."""
    world = World(on_report=refuse)

    assert await process(world) is Disposition.COMPLETED
    assert [str(error) for error in world.events.refusals] == ["OOM"]


class TestStreaming:
    async def test_deltas_are_flushed_before_the_result(self) -> None:
        """The budget is settled first: the fleet does not wait for a slow Redis."""
        world = World()
        await process(world, message({"body": body(stream=True)}))

        assert world.names[2:] == ["begin", "open", "event", "report", "flushed", "complete"]
        assert world.heard("complete")[0]["answer"].streamed

    async def test_readers_are_told_when_it_starts_over(self) -> None:
        world = World(outcomes=deque([failing(ErrorCode.RATE_LIMITED)]))
        await process(world, message({"body": body(stream=True)}))

        assert [told["attempt"] for told in world.heard("open")] == [1, 2]
        assert world.heard("restarted") == [{"code": "rate_limited"}]

    @pytest.mark.parametrize(
        ("gate", "streamed", "expected"),
        [
            ("breaker_open", (CREATED, DELTA, DELTA), 1),
            ("breaker_open", (CREATED, b"no JSON", b"[]"), 0),
            ("", (CREATED, DELTA), 0),
        ],
    )
    async def test_a_probe_says_once_that_its_answer_has_begun(
        self, gate: Gate, streamed: tuple[bytes, ...], expected: int
    ) -> None:
        """Others may call from then on. An event that brings no output announces only what may still fail."""
        world = World(grants=deque([gate]), streamed=streamed)

        assert await process(world, message({"body": body(stream=True)})) is Disposition.COMPLETED
        told = [name for name in world.names if name in ("output", "report")]
        assert told == ["output"] * expected + ["report"]
        assert len(world.heard("event")) == len(streamed)

    async def test_a_gate_that_cannot_be_opened_yet_costs_no_answer(self) -> None:
        world = World(grants=deque(["breaker_open"]), streamed=(DELTA,), on_output=refuse)

        assert await process(world, message({"body": body(stream=True)})) is Disposition.COMPLETED

    async def test_nobody_watches_what_was_not_asked_for(self) -> None:
        world = World()
        await process(world)

        assert "open" not in world.names


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
