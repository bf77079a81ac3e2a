"""A request ends early when it is interrupted or superseded, or when it is not worth a call."""

import asyncio
from collections import deque
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from support.processor_parts import attempts, execution_of, failing, interrupted, message, process, processor, reported
from support.processor_world import ANSWER, MINUTE_MS, World
from support.producer import body

from api_contracts import ErrorCode
from worker.admission.grants import NotAdmitted, Reason
from worker.queue.claims import Refusal, Standing, WriteOutcome
from worker.request.charges import INTERRUPTED
from worker.request.decisions import REFUSED, Disposition
from worker.request.execution import Interruption


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
