"""Celery's task events, for Flower and `celery events`: sent by a thread of its own, so that no request waits for one.

Events hold no content: arguments are withheld, and a result is the word for what became of the delivery. What does not
fit into the queue, or meets a Redis that is away, is dropped: events are for looking, results are for counting.
"""

import queue
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from celery.worker import state as celery_state

QUEUED: Final = 10_000
LEAVE_S: Final = 1.0

_ENDS: Final[Mapping[str, str]] = {
    "SUCCESS": "task-succeeded",
    "FAILURE": "task-failed",
    "RETRY": "task-retried",
    "REVOKED": "task-revoked",
}
"""Celery's word for a state -> its event; every other end is `task-rejected`."""

_processed: Any = celery_state.all_total_count


class CeleryEvents:
    """`connect` returns a dispatcher of Celery's on a connection of its own; it is asked again after an error."""

    def __init__(self, connect: Callable[[], Any]) -> None:
        self._connect = connect
        self._dispatcher: Any = None
        self._queue: queue.Queue[tuple[str, dict[str, Any]] | None] = queue.Queue(QUEUED)
        self._thread = threading.Thread(target=self._run, name="celery-events", daemon=True)
        self._thread.start()

    def received(self, request: Any) -> None:
        """A worker took the message, and starts on it; the same `request` as Celery's signals have."""
        _processed[0] += 1
        shown = {"name": request.task, "args": request.argsrepr, "kwargs": request.kwargsrepr, "retries": 0}
        known = {field: getattr(request, field) for field in ("root_id", "parent_id", "eta", "expires")}
        self._tell("task-received", uuid=request.id, **shown, **known)
        self._tell("task-started", uuid=request.id)

    def ended(self, request: Any, state: str, word: str, runtime_s: float) -> None:
        """The delivery ended in this state of Celery's; `word` is a disposition or an error code."""
        fields: Mapping[str, Any] = {
            "SUCCESS": {"result": word, "runtime": runtime_s},
            "FAILURE": {"exception": word, "traceback": ""},
            "RETRY": {"exception": word, "traceback": ""},
            "REVOKED": {"terminated": False, "signum": None, "expired": word == "deadline_exceeded"},
        }.get(state, {"requeue": state == "REJECTED"})
        self._tell(_ENDS.get(state, "task-rejected"), uuid=request.id, **fields)

    def close(self) -> None:
        """Sends what is queued, if that takes no more than a second."""
        try:
            self._queue.put_nowait(None)
        except queue.Full:
            return
        self._thread.join(LEAVE_S)

    def _tell(self, kind: str, **fields: Any) -> None:
        try:
            self._queue.put_nowait((kind, {"timestamp": time.time(), **fields}))
        except queue.Full:
            return

    def _run(self) -> None:
        while (event := self._queue.get()) is not None:
            kind, fields = event
            try:
                self._dispatcher = self._dispatcher or self._connect()
                self._dispatcher.send(kind, **fields)
            except Exception:  # noqa: BLE001  # kombu, redis-py and sockets have errors of their own: the event is lost
                self._dispatcher = None
