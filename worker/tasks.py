"""The Celery tasks of this worker: for each name, the coroutine that the pool runs for a message.

A new task is one module with such a coroutine, and one line in TASKS. Its messages travel on the same lanes, and its
requests wait for the same budget. A coroutine must bring its delivery to an end: it answers it, parks it, hands it back
or buries it, through the ledger of the processor that it is given.
"""

from collections.abc import Callable, Coroutine
from typing import Any, Final

from api_contracts.queues import TASK_NAME
from worker.request.execution import Execution
from worker.request.processor import Disposition, Processor

TaskCoroutine = Callable[[Processor, Execution], Coroutine[Any, Any, Disposition]]


async def create(processor: Processor, execution: Execution) -> Disposition:
    """Sends one request to the gateway and publishes exactly one result."""
    return await processor.process(execution)


TASKS: Final[dict[str, TaskCoroutine]] = {TASK_NAME: create}
"""Celery's name of a task -> its coroutine; `worker.runtime.celery_app` registers them with Celery."""
