"""Celery's remote control: every command of its registry is honoured or refused with a line that names our way.

A command that Celery adds in a later version is refused until it is listed here. Commands that other code registers
are left alone.
"""

import logging
import os
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final, cast

from celery.worker import state as celery_state
from celery.worker.control import Panel as CeleryPanel
from kombu.entity import Queue

from api_contracts.queues import DEFAULT_TENANT, TASK_NAME, lane_queue
from worker.queue.identity import task_id_of
from worker.request.execution import Execution, Interruption
from worker.runtime.pool import Pool
from worker.runtime.service import Service

REVOKE_KEPT_MS: Final = (7 * 24 + 1) * 3600 * 1000
"""The time for which a revoked id is remembered for a message still to be taken: longer than any eta may be away."""

_STOCK: Final = ("ping", "stats", "registered", "conf", "report", "clock", "revoked")
"""Celery's own commands that are true of this worker as they are."""

_LANES: Final = "set WORKER_LANES and restart, or stop all lanes with `responses-worker pause`"
_PROCESSES: Final = "set WORKER_CONCURRENCY and restart, or run more processes"
_EVENTS: Final = "set WORKER_CELERY_EVENTS and restart"
_MEMORY: Final = "see process_resident_memory_bytes on /metrics"

REFUSED: Final = {
    "add_consumer": _LANES,
    "cancel_consumer": _LANES,
    "pool_grow": _PROCESSES,
    "pool_shrink": _PROCESSES,
    "pool_restart": "send SIGTERM: it drains, and a supervisor starts the worker again",
    "autoscale": _PROCESSES,
    "rate_limit": "the fleet shares one budget: `responses-worker limits --rpm N --tpm N --in-flight N`",
    "time_limit": "set `timeout` in the envelope, or WORKER_REQUEST_TIMEOUT and restart",
    "enable_events": _EVENTS,
    "disable_events": _EVENTS,
    "heartbeat": _EVENTS + "; /livez shows whether the worker is alive",
    "election": "workers hold no elections",
    "revoke_by_stamped_headers": "messages with stamps are not taken; use `revoke` with task ids",
    "objgraph": "objects of this process hold prompts; send SIGUSR1 for stacks",
    "memsample": _MEMORY,
    "memdump": _MEMORY,
}
"""Celery's name of a command -> what to do instead."""

_panel: Any = CeleryPanel
_CELERYS: Final[tuple[str, ...]] = tuple(_panel.meta)
_revoked: Any = celery_state.revoked
_log = logging.getLogger(__name__)


def install() -> None:
    """Replaces Celery's commands by ours, and every other command that is not true of this worker by its refusal."""
    for name in _CELERYS:
        command = _OURS.get(name) or (None if name in _STOCK else _refusal(name))
        if command is not None and _panel.data[name] is not command:
            _replace(name, _panel.meta[name].alias, command)


def _replace(name: str, alias: str | None, command: Callable[..., Any]) -> None:
    _panel.data[name] = command
    if alias:
        _panel.data[alias] = command


def _refusal(name: str) -> Callable[..., dict[str, str]]:
    instead = REFUSED.get(name, "it would have no effect")

    def refuse(_state: Any, **_arguments: Any) -> dict[str, str]:
        return {"error": f"{name}: not for a responses-worker: {instead}"}

    return refuse


def active(state: Any, **_: Any) -> list[dict[str, Any]]:
    """Requests with a call in flight; arguments are prompts and are not shown."""
    return [_describe(state, each) for each in _executions(state) if each.calling]


def reserved(state: Any, **_: Any) -> list[dict[str, Any]]:
    """Requests that were taken and wait for the budget."""
    return [_describe(state, each) for each in _executions(state) if not each.calling]


def scheduled(_state: Any, **_: Any) -> list[dict[str, Any]]:
    """Always empty: what waits for its time is parked in Redis, not in a worker's memory."""
    return []


def query_task(state: Any, ids: Any, **_: Any) -> dict[str, tuple[str, dict[str, Any]]]:
    """The requests of these task ids that this process holds, each as ("active" or "reserved", description)."""
    wanted = set(_listed(ids))
    return {
        each.message.task_id: ("active" if each.calling else "reserved", _describe(state, each))
        for each in _executions(state)
        if each.message and each.message.task_id in wanted
    }


def active_queues(state: Any, **_: Any) -> list[dict[str, Any]]:
    """The lanes that this worker serves, as Celery describes queues."""
    return [cast("Any", Queue(lane_queue(lane))).as_dict(recurse=True) for lane in _pool(state).service.lanes]


def hello(state: Any, from_node: str, **_: Any) -> dict[str, Any] | None:
    """Answers other workers that start; revoked ids are in Redis, so there are none to exchange."""
    return {"revoked": [], "clock": state.app.clock.forward()} if from_node != state.hostname else None


def revoke(state: Any, task_id: Any, **_: Any) -> dict[str, str]:
    """Cancels requests by Celery task id, whether queued, parked or in flight; each gets its `cancelled` result."""
    task_ids = _listed(task_id)
    if not task_ids:
        return {"error": "revoke: give one task id or a list of them"}

    async def cancel(service: Service) -> None:
        for one in task_ids:
            await service.ledger.revoke(one, ttl_ms=REVOKE_KEPT_MS)
            await service.ledger.cancel(DEFAULT_TENANT, one, ttl_ms=REVOKE_KEPT_MS)  # wakes it where it is parked
            service.executor.interrupt(one, Interruption.CANCELLED)

    _revoked.update(task_ids)  # `inspect revoked` shows them
    _pool(state).submit(cancel).add_done_callback(_note)
    return {"ok": f"tasks {', '.join(task_ids)} flagged as revoked"}


def terminate(state: Any, signal: Any, task_id: Any, **_: Any) -> dict[str, str]:  # noqa: ARG001  # Celery's signature
    """The same as `revoke`, which ends a call in flight as well; there is no child process to signal."""
    return revoke(state, task_id)


def shutdown(state: Any, **_: Any) -> dict[str, str]:
    """Drains, as SIGTERM does, however often it is sent."""
    state.consumer.controller.drain()
    return {"ok": f"draining; process {os.getpid()} leaves when its calls have ended or are handed back"}


_OURS: Final[dict[str, Callable[..., Any]]] = {
    command.__name__: command
    for command in (
        active,
        reserved,
        scheduled,
        query_task,
        active_queues,
        hello,
        revoke,
        terminate,
        shutdown,
    )
}


def _note(done: "Future[None]") -> None:
    if not done.cancelled() and done.exception() is not None:
        _log.error("revoke failed: %s", type(done.exception()).__name__)


def _listed(ids: Any) -> list[str]:
    """The names that the messages of these tasks go by."""
    given = cast("list[Any]", ids) if isinstance(ids, list) else [ids]
    return [name for one in given if (name := task_id_of(one)) is not None]


def _pool(state: Any) -> Pool:
    return state.consumer.pool


def _executions(state: Any) -> list[Execution]:
    return list(_pool(state).service.executor.held)


def _describe(state: Any, execution: Execution) -> dict[str, Any]:
    message = execution.message
    return {
        "id": message.task_id if message else None,
        "name": (message.headers.get("task") if message else None) or TASK_NAME,
        "args": [],
        "kwargs": {},
        "hostname": state.hostname,
        "request_id": message.request_id if message else None,
        "tenant": message.tenant if message else None,
        "lane": execution.delivery.lane,
        "attempt": execution.number,
    }
