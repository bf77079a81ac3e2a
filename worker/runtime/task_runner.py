"""Runs the task of a delivery, and tells Celery's task signals about it.

The signals carry the arguments that Celery documents, with two differences. Prompts are withheld: `args` and `kwargs`
are always empty. A result stays out as well: `result` and `retval` are the word for what became of the delivery, such
as "completed". Receivers run on the event loop, so a receiver that blocks holds up every request of the process.
(docs.celeryq.dev/en/stable/userguide/signals.html)

| what became of the delivery | signals between task_received, task_prerun and task_postrun | `state` of task_postrun |
|---|---|---|
| completed, incomplete | task_success | SUCCESS |
| failed, dead_lettered, a bug | task_failure | FAILURE |
| failed because it was cancelled, or its deadline passed | task_revoked | REVOKED |
| retry_scheduled | task_retry | RETRY |
| delayed, released: it runs again later, nothing was spent | none | REJECTED |
| duplicate, busy, and so on: another delivery answers | none | IGNORED |
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from billiard.einfo import ExceptionInfo
from celery import signals
from celery.app.task import Context

from api_contracts import ErrorCode
from api_contracts.queues import TASK_NAME, lane_queue
from worker.queue.celery_message import headers_of, task_name
from worker.request.execution import Execution
from worker.request.processor import Disposition, Processor
from worker.runtime.celery_events import CeleryEvents
from worker.telemetry.redaction import WITHHELD
from worker.telemetry.redaction import name as type_name

_celery: Any = signals
"""Celery has no types."""

_SIGNALS: Final[tuple[Any, ...]] = (
    signals.task_received,
    signals.task_prerun,
    signals.task_postrun,
    signals.task_success,
    signals.task_failure,
    signals.task_retry,
    signals.task_revoked,
)
_OF_THE_MESSAGE: Final = ("id", "root_id", "parent_id", "group", "origin", "shadow", "eta", "expires")
_STATES: Final[Mapping[Disposition, str]] = {
    Disposition.COMPLETED: "SUCCESS",
    Disposition.INCOMPLETE: "SUCCESS",
    Disposition.FAILED: "FAILURE",
    Disposition.DEAD_LETTERED: "FAILURE",
    Disposition.RETRY_SCHEDULED: "RETRY",
    Disposition.DELAYED: "REJECTED",
    Disposition.RELEASED: "REJECTED",
}
_REVOKING: Final = (ErrorCode.CANCELLED, ErrorCode.DEADLINE_EXCEEDED)


class RequestFailedError(Exception):
    """A request that ended in an error: `code` is an error code of the contract, the text holds no prompt."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


@dataclass(slots=True, kw_only=True)
class TaskRunner:
    """Runs deliveries; `consumer` gives Celery's consumer, the sender of `task_received`."""

    processor: Processor
    tasks: Mapping[str, Any]
    """Celery's task objects, by name; their `run` is the coroutine."""
    hostname: str
    consumer: Callable[[], Any]
    events: CeleryEvents | None = None
    """Set if WORKER_CELERY_EVENTS asks for them."""

    async def run(self, execution: Execution) -> Disposition:
        """Runs the coroutine registered for the message. A message of an unknown task is answered as a mistake."""
        task = self.tasks.get(task_name(execution.delivery.message) or "", self.tasks[TASK_NAME])
        if self.events or any(signal.receivers for signal in _SIGNALS):
            return await self._run_and_tell(task, execution)
        return await task.run(self.processor, execution)

    async def _run_and_tell(self, task: Any, execution: Execution) -> Disposition:
        request, started = self._request(task, execution), time.monotonic()
        common = {"task_id": request.id, "task": task, "args": request.args, "kwargs": request.kwargs}
        _celery.task_received.send(sender=self.consumer(), request=request)
        if self.events:
            self.events.received(request)
        _celery.task_prerun.send(sender=task, **common)
        state, retval = "REJECTED", ""
        try:
            retval = ended = await task.run(self.processor, execution)
            state = _tell_end(task, request, execution, ended, time.monotonic() - started)
        except Exception as bug:
            state = "FAILURE"
            _tell_failure(task, request, RequestFailedError(ErrorCode.INTERNAL_ERROR, type_name(bug)))
            raise
        finally:
            _celery.task_postrun.send(sender=task, **common, retval=retval, state=state)
            if self.events:
                self.events.ended(request, state, _word(execution, state, retval), time.monotonic() - started)
        return ended

    def _request(self, task: Any, execution: Execution) -> Any:
        """The message as Celery's `task.request` shows it, without its arguments."""
        headers = headers_of(execution.delivery.message)
        return Context(
            {field: headers.get(field) for field in _OF_THE_MESSAGE},
            headers={},
            task=task.name,
            name=task.name,
            args=(),
            kwargs={},
            argsrepr=WITHHELD,
            kwargsrepr=WITHHELD,
            hostname=self.hostname,
            called_directly=False,
            delivery_info={"exchange": "", "routing_key": lane_queue(execution.delivery.lane)},
        )


def _tell_end(task: Any, request: Any, execution: Execution, ended: Disposition, runtime_s: float) -> str:
    """Sends the signal for the end of the delivery. Returns Celery's word for its state."""
    state = _STATES.get(ended, "IGNORED")
    error = execution.error if ended is Disposition.FAILED else None
    if error is not None and error.code in _REVOKING:
        expired = error.code == ErrorCode.DEADLINE_EXCEEDED
        called = bool(execution.calls)
        _celery.task_revoked.send(sender=task, request=request, terminated=called, signum=None, expired=expired)
        return "REVOKED"
    if state == "SUCCESS":
        _celery.task_success.send(sender=task, result=ended, runtime=runtime_s)
    elif state == "FAILURE":
        _tell_failure(task, request, RequestFailedError(error.code if error else ended, error.message if error else ""))
    elif state == "RETRY":
        failure = execution.last_failure
        reason, einfo = _raised(RequestFailedError(failure.code if failure else ended, "will be tried again"))
        request.retries = execution.spent.failures
        _celery.task_retry.send(sender=task, request=request, reason=reason, einfo=einfo)
    return state


def _word(execution: Execution, state: str, ended: str) -> str:
    """The code of what went wrong, else what became of the delivery; nothing of either is content."""
    if execution.error:
        return execution.error.code
    if state == "RETRY" and execution.last_failure:
        return execution.last_failure.code
    return ended or ErrorCode.INTERNAL_ERROR


def _tell_failure(task: Any, request: Any, error: RequestFailedError) -> None:
    exception, einfo = _raised(error)
    _celery.task_failure.send(
        sender=task,
        task_id=request.id,
        exception=exception,
        args=request.args,
        kwargs=request.kwargs,
        traceback=exception.__traceback__,
        einfo=einfo,
    )


def _raised(error: RequestFailedError) -> tuple[RequestFailedError, Any]:
    """The error and Celery's record of it, which needs an error that was raised."""
    try:
        raise error
    except RequestFailedError:
        return error, ExceptionInfo()
