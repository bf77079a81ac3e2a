"""How a process lets go of its requests when it leaves.

1. The fetcher stops. Requests that are claimed but have no call in flight go back at once; they cost nothing.
2. Calls in flight go on for `grace_s`. Their answers are paid for, and wait as long for Redis to take them.
3. What is left is interrupted and goes back: no attempt spent, marked `maybe_billed`.

This takes at most the grace plus a few seconds, and for Redis alone only those seconds: what Redis cannot take back
now, another worker's rescuer finds when the lease has run out.
"""

import asyncio
import time
from typing import Final

from worker.request.execution import Interruption
from worker.runtime.executor import Executor

HANDBACK_S: Final = 2.0
"""How long handing back may take once nothing but Redis is waited for."""

LOOK_S: Final = 0.1
"""How often a draining process looks whether calls are still in flight."""


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
    """Until all is done, the grace is over, or nothing that costs money has been under way for a while."""
    now = time.monotonic()
    grace_ends, patience_ends = now + grace_s, now + HANDBACK_S
    while now < grace_ends and now < patience_ends and (executor.tasks or not fetching.done()):
        await _wait(LOOK_S, *executor.tasks, fetching)  # what a pop under way took is held, too
        now = time.monotonic()
        if any(execution.on_the_wire or execution.answer for execution in executor.held):
            patience_ends = now + HANDBACK_S


async def _wait(seconds: float, *tasks: "asyncio.Task[None]") -> None:
    pending = [task for task in tasks if not task.done()]
    if pending:
        await asyncio.wait(pending, timeout=seconds)
