"""Celery's remote control, answered by our pool: `inspect active/reserved/scheduled`, and `revoke`.

`ping`, `stats`, `registered`, `conf` and `report` are Celery's own and work as they are.
"""

import logging
from concurrent.futures import Future
from typing import Any, Final, cast

from celery.worker import control

from api_contracts.queues import DEFAULT_TENANT
from worker.request.execution import Execution, Interruption
from worker.runtime.pool import Pool
from worker.runtime.service import Service

REVOKE_KEPT_MS: Final = 24 * 3600 * 1000
"""How long a revoked id is remembered for a message that has not been taken yet."""

CELERY_SURFACE: Final = (
    ("`send_task`, `apply_async`, `delay`", "yes", "message protocol 2, JSON serializer, one argument: the envelope"),
    ("`priority`", "yes", "0 first, then 3, 6, 9, as with Celery's own Redis transport"),
    ("`expires`", "yes", "an earlier deadline; an expired request is answered `deadline_exceeded`, not dropped"),
    ("`eta`, `countdown`", "yes", "parked in Redis until then, not in a worker's memory"),
    ("`revoke`", "yes", "by task id, queued, parked or in flight: one `cancelled` result"),
    ("`inspect ping`, `stats`, `registered`, `conf`, `report`", "yes", "`stats` shows the pool's lanes and load"),
    (
        "`inspect active`, `reserved`",
        "yes",
        "calls in flight, requests that wait for the budget; never their arguments",
    ),
    ("`inspect scheduled`, `active_queues`", "empty", "what waits is in Redis: `responses-worker status`"),
    ("`sentry-trace`, `traceparent` headers", "yes", "the request joins the caller's trace"),
    ("`AsyncResult`, result backends", "no", "results are stream entries"),
    ("`link`, chains, groups, chords", "no", "refused with `invalid_request`, so that nothing is skipped silently"),
    ("`retry`, `rate_limit`, `time_limit`", "no", "`max_attempts`, the shared budget and `timeout` instead"),
    ("`add_consumer`, `cancel_consumer`, autoscaling", "no", "`WORKER_LANES`, and processes"),
    ("compression, protocol 1, pickle", "no", "refused with `invalid_request`"),
)
"""What of Celery works here: README shows it, tests hold it."""

_control: Any = control
"""Celery has no types."""

_log = logging.getLogger(__name__)


@_control.inspect_command(name="active", alias="dump_active")
def active(state: Any, **_: Any) -> list[dict[str, Any]]:
    """Requests with a call in flight; arguments are prompts and are not shown."""
    return [_describe(state, each) for each in _executions(state) if each.calling]


@_control.inspect_command(name="reserved", alias="dump_reserved")
def reserved(state: Any, **_: Any) -> list[dict[str, Any]]:
    """Requests that were taken and wait for the budget."""
    return [_describe(state, each) for each in _executions(state) if not each.calling]


@_control.inspect_command(name="scheduled", alias="dump_schedule")
def scheduled(_state: Any, **_: Any) -> list[dict[str, Any]]:
    """Always empty: what waits for its time is parked in Redis, not in a worker's memory."""
    return []


@_control.control_command(name="revoke", variadic="task_id", signature="[id1 [id2 [... [idN]]]]")
def revoke(state: Any, task_id: Any, **_: Any) -> dict[str, str]:
    """Cancels requests by Celery task id, whether queued, parked or in flight; each gets its `cancelled` result."""
    task_ids = [str(one) for one in (cast("list[Any]", task_id) if isinstance(task_id, list) else [task_id])]

    async def cancel(service: Service) -> None:
        for one in task_ids:
            await service.ledger.cancel("", one, ttl_ms=REVOKE_KEPT_MS)
            await service.ledger.cancel(DEFAULT_TENANT, one, ttl_ms=REVOKE_KEPT_MS)  # wakes it where it is parked
            service.executor.interrupt(one, Interruption.CANCELLED)

    _pool(state).submit(cancel).add_done_callback(_note)
    return {"ok": f"tasks {', '.join(task_ids)} flagged as revoked"}


def _note(done: "Future[None]") -> None:
    if not done.cancelled() and done.exception() is not None:
        _log.error("revoke failed: %s", type(done.exception()).__name__)


def _pool(state: Any) -> Pool:
    return state.consumer.pool


def _executions(state: Any) -> list[Execution]:
    return list(_pool(state).service.executor.held)


def _describe(state: Any, execution: Execution) -> dict[str, Any]:
    message = execution.message
    return {
        "id": message.task_id if message else None,
        "name": "responses.create",
        "args": [],
        "kwargs": {},
        "hostname": state.hostname,
        "request_id": message.request_id if message else None,
        "tenant": message.tenant if message else None,
        "lane": execution.delivery.lane,
        "attempt": execution.number,
    }
