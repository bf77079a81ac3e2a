"""Requests that kill workers: who is suspected runs alone, and who did it again is dead. Everybody else is answered."""

import asyncio
from collections import deque

import pytest
from support.ledger_parts import eventually
from support.processor_parts import World, attempts, execution_of, past_attempt, process, processor

from worker.request.execution import Interruption
from worker.request.policy import POISON_CRASHES, SUSPECT_CRASHES
from worker.request.processor import Disposition


async def test_at_the_third_crash_it_is_dead_and_answered() -> None:
    world = World(lease={"crashes": POISON_CRASHES, "attempts": (past_attempt(1, "started"),)})

    assert await process(world) is Disposition.FAILED
    assert world.result["error"]["code"] == "internal_error"
    assert world.heard("complete")[0]["dead_letter_reason"] == "poison"
    assert world.calls == []
    assert attempts(world) == [("interrupted", None, True)]


async def test_suspects_run_one_at_a_time_beside_everybody_else() -> None:
    """Who took two processes down must be alone among its kind when the third falls."""
    world = World(lease={"crashes": SUSPECT_CRASHES}, outcomes=deque([None]))
    shared = processor(world)
    suspects = [execution_of(name=f"s{number}") for number in range(3)]
    tasks = [asyncio.create_task(shared.process(each)) for each in suspects]
    await world.calling.wait()
    world.lease = {"crashes": SUSPECT_CRASHES - 1}
    assert await shared.process(execution_of(name="innocent")) is Disposition.COMPLETED
    assert len(world.calls) == 2

    suspects[0].interrupt(Interruption.DRAINING)
    dispositions = await asyncio.wait_for(asyncio.gather(*tasks), 5)

    assert dispositions == [Disposition.RELEASED, Disposition.COMPLETED, Disposition.COMPLETED]
    assert world.most_running == 2


@pytest.mark.parametrize(
    ("why", "left_ms", "expected"),
    [
        (Interruption.DRAINING, 60_000, (Disposition.RELEASED, None)),
        (Interruption.CANCELLED, 60_000, (Disposition.FAILED, "cancelled")),
        (None, 1, (Disposition.FAILED, "deadline_exceeded")),
    ],
)
async def test_a_suspect_that_waits_for_another_can_leave(
    why: Interruption | None, left_ms: int, expected: tuple[Disposition, str | None]
) -> None:
    """Neither a drain, nor a cancellation, nor its deadline waits for the call of the one before."""
    world = World(lease={"crashes": SUSPECT_CRASHES}, outcomes=deque([None]))
    shared = processor(world)
    first = asyncio.create_task(shared.process(execution_of(name="first")))
    await world.calling.wait()
    world.lease["left_ms"] = left_ms
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
