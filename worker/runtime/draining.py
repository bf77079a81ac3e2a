"""Hands back or finishes the requests of a process that leaves.

1. The fetcher stops. Requests that are claimed but have no call in flight go back at once; they cost nothing.
2. Calls in flight go on for `grace_s`. Their answers are paid for, and wait as long for Redis to take them.
3. The rest is interrupted and goes back: no attempt spent, marked `maybe_billed`.

This takes at most the grace plus a few seconds, and for Redis alone only those seconds: another worker's rescuer
finds the deliveries that Redis cannot take back now, once their leases have run out.
"""

import asyncio
import time
from typing import Final

from worker.request.execution import Interruption
from worker.runtime.executor import Executor

HANDBACK_S: Final = 2.0
"""Seconds for handing back, once only Redis is waited for."""

LOOK_S: Final = 0.1
"""Seconds between two looks for calls in flight."""


async def drain(executor: Executor, fetching: "asyncio.Task[None]", grace_s: float) -> None:
    """Returns when every request is finished or handed back, or could not be in time."""
    fetching.cancel()
    for execution in executor.held:
        if not execution.calling:
            execution.interrupt(Interruption.DRAINING)
    await _wait_for_calls(executor, fetching, grace_s)
    for execution in executor.held:
        execution.interrupt(Interruption.DRAINING)
    await _wait(HANDBACK_S, *executor.tasks)


async def _wait_for_calls(executor: Executor, fetching: "asyncio.Task[None]", grace_s: float) -> None:
    """Waits until all is done, the grace is over, or no paid call has been under way for a while."""
    now = time.monotonic()
    grace_ends, patience_ends = now + grace_s, now + HANDBACK_S
    while now < grace_ends and now < patience_ends and (executor.tasks or not fetching.done()):
        await _wait(LOOK_S, *executor.tasks, fetching)  # deliveries of a pop under way are held, too
        now = time.monotonic()
        if any(execution.on_the_wire or execution.answer for execution in executor.held):
            patience_ends = now + HANDBACK_S


async def _wait(seconds: float, *tasks: "asyncio.Task[None]") -> None:
    pending = [task for task in tasks if not task.done()]
    if pending:
        await asyncio.wait(pending, timeout=seconds)
