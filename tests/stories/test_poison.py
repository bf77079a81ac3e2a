"""Requests that kill workers: suspects run in ever smaller groups, and the one that kills alone is dead."""

import asyncio
from collections import deque

import pytest
from support.ledger_parts import eventually
from support.processor_parts import attempts, execution_of, past_attempt, process, processor
from support.processor_world import World

from worker.request.execution import Interruption
from worker.request.policy import POISON_CRASHES, SUSPECT_CRASHES, SUSPECT_DELAY_MS
from worker.request.processor import Disposition


async def test_at_the_third_crash_it_is_dead_and_answered() -> None:
    world = World(lease={"crashes": POISON_CRASHES, "attempts": (past_attempt(1, "started"),)})

    assert await process(world) is Disposition.FAILED
    assert world.result["error"]["code"] == "internal_error"
    assert world.heard("complete")[0]["dead_letter_reason"] == "poison"
    assert world.calls == []
    assert attempts(world) == [("interrupted", None, True)]


async def test_three_crashes_beside_others_convict_nobody() -> None:
    world = World(lease={"crashes": POISON_CRASHES, "group": 2, "alone": False})

    assert await process(world) is Disposition.COMPLETED


@pytest.mark.parametrize(("group", "together"), [(10, 5), (7, 3), (3, 1)])
async def test_suspects_run_in_halves_of_those_that_fell_together(group: int, together: int) -> None:
    """The others wait parked: they hold no place, and no budget."""
    world = World(lease={"crashes": SUSPECT_CRASHES, "group": group, "alone": False}, outcomes=deque([None] * group))
    shared = processor(world)
    suspects = [execution_of(name=f"s{number}") for number in range(group)]
    tasks = [asyncio.create_task(shared.process(each)) for each in suspects]
    await eventually(lambda: len(world.calls) == together and sum(task.done() for task in tasks) == group - together)

    assert {task.result() for task in tasks if task.done()} == {Disposition.DELAYED}
    assert [parked["delay_ms"] for parked in world.heard("park")] == [SUSPECT_DELAY_MS] * (group - together)

    for suspect in suspects:
        suspect.interrupt(Interruption.DRAINING)
    await asyncio.wait_for(asyncio.gather(*tasks), 5)
    world.outcomes.clear()
    assert await shared.process(execution_of(name="next")) is Disposition.COMPLETED


async def test_others_run_beside_a_group_of_suspects() -> None:
    world = World(lease={"crashes": SUSPECT_CRASHES, "group": 4, "alone": False}, outcomes=deque([None]))
    shared = processor(world)
    suspect = asyncio.create_task(shared.process(execution_of(name="suspect")))
    await world.calling.wait()
    world.lease = {"crashes": SUSPECT_CRASHES - 1}

    assert await shared.process(execution_of(name="innocent")) is Disposition.COMPLETED
    suspect.cancel()


async def test_the_last_of_a_group_runs_alone() -> None:
    """It waits until the others have ended, and what arrives meanwhile goes back for another process."""
    world = World(outcomes=deque([None]))
    shared = processor(world)
    first = execution_of(name="first")
    running = asyncio.create_task(shared.process(first))
    await world.calling.wait()
    world.lease = {"crashes": SUSPECT_CRASHES, "group": 2, "alone": False}
    suspect = asyncio.create_task(shared.process(execution_of(name="suspect")))
    await eventually(lambda: shared.quarantine.closed)
    world.lease = None
    assert await shared.process(execution_of(name="late")) is Disposition.RELEASED
    assert len(world.calls) == 1

    first.interrupt(Interruption.CANCELLED)

    assert await asyncio.wait_for(suspect, 5) is Disposition.COMPLETED
    assert await running is Disposition.FAILED
    assert world.most_running == 1
    assert not shared.quarantine.closed


@pytest.mark.parametrize(
    ("why", "left_ms", "expected"),
    [
        (Interruption.DRAINING, 60_000, (Disposition.RELEASED, None)),
        (Interruption.CANCELLED, 60_000, (Disposition.FAILED, "cancelled")),
        (None, 1, (Disposition.FAILED, "deadline_exceeded")),
    ],
)
async def test_a_suspect_that_waits_to_be_alone_can_leave(
    why: Interruption | None, left_ms: int, expected: tuple[Disposition, str | None]
) -> None:
    """Neither a drain, nor a cancellation, nor its deadline waits for the calls of the others."""
    world = World(outcomes=deque([None]))
    shared = processor(world)
    first = asyncio.create_task(shared.process(execution_of(name="first")))
    await world.calling.wait()
    world.lease = {"crashes": SUSPECT_CRASHES, "group": 2, "alone": False, "left_ms": left_ms}
    second = execution_of(name="second")
    waiting = asyncio.create_task(shared.process(second))
    await eventually(lambda: len(world.heard("claim")) == 2)

    if why is not None:
        second.interrupt(why)
    disposition = await asyncio.wait_for(waiting, 5)

    assert (disposition, second.error and second.error.code) == expected
    assert not first.done()
    first.cancel()


async def test_a_bug_in_one_suspect_lets_the_next_one_run() -> None:
    world = World(lease={"crashes": SUSPECT_CRASHES}, outcomes=deque([ZeroDivisionError()]))
    shared = processor(world)

    assert await shared.process(execution_of()) is Disposition.FAILED
    assert await asyncio.wait_for(shared.process(execution_of()), 5) is Disposition.COMPLETED
