"""For each alert, what Redis holds when it fires: written as workers and scripts write it."""

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from support.dead_letters import bury
from support.fleet_hour import minute_counts, worker_says
from support.producer import body
from worker.storage import keys


def _now_ms() -> int:
    return round(time.time() * 1000)


def _at_work(valkey: Any) -> None:
    worker_says(valkey, "well", _now_ms(), per_second={"interactive": 3.0})
    valkey.zadd(keys.FLEET["moved"], {"interactive": _now_ms()})


def _waits(valkey: Any, lane: str, for_s: float) -> None:
    """One message that was enqueued so long ago."""
    at = (datetime.now(UTC) - timedelta(seconds=for_s)).isoformat()
    envelope = {"body": body("Hello!"), "enqueued_at": at}
    headers = {"id": "task-1", "task": "responses.create"}
    message = {
        "body": json.dumps([[envelope], {}, {}]),
        "headers": headers,
        "properties": {},
        "content-type": "application/json",
    }
    valkey.lpush(f"responses.{lane}", json.dumps(message))


def failing(valkey: Any) -> None:
    _at_work(valkey)
    minute_counts(valkey, 0, {"answers interactive failed": 40, "failed interactive upstream_error": 40})


def failed_an_hour_ago(valkey: Any) -> None:
    """The gateway is well again, and the requests that it failed are kept."""
    _at_work(valkey)
    minute_counts(valkey, 40, {"answers interactive failed": 40, "failed interactive upstream_error": 40})
    facts = {"lane": "interactive", "code": "upstream_error", "tenant": "acme", "request_id": "r", "size": "9"}
    valkey.xadd(keys.FAILED_STREAM, facts)


def late(valkey: Any) -> None:
    _at_work(valkey)
    _waits(valkey, "interactive", 600)


def nothing_moves(valkey: Any) -> None:
    worker_says(valkey, "idle", _now_ms())
    _waits(valkey, "interactive", 600)


def unserved(valkey: Any) -> None:
    _at_work(valkey)
    _waits(valkey, "reports", 600)


def shut(valkey: Any) -> None:
    _at_work(valkey)
    gate = {"gate": "authentication_failed", "gate_code": "authentication_failed", "gate_since": _now_ms() - 60_000}
    valkey.hset(keys.upstream("default")["quota"], mapping=gate | {"probe_at": _now_ms() + 30_000})


def paused(valkey: Any) -> None:
    _at_work(valkey)
    valkey.hset(
        keys.upstream("default")["quota"], mapping={"paused": _now_ms() - 60_000, "paused_by": "ann at bastion"}
    )


def unread(valkey: Any) -> None:
    """A group that was given none of 200,000 results."""
    _at_work(valkey)
    valkey.xadd("responses:results", {"request_id": "one", "result": "{}"}, id="5-0")
    valkey.execute_command("XSETID", "responses:results", "5-0", "ENTRIESADDED", "200000", "MAXDELETEDID", "0-0")
    valkey.execute_command("XGROUP", "CREATE", "responses:results", "billing", "0", "ENTRIESREAD", "0")


def dead(valkey: Any) -> None:
    _at_work(valkey)
    bury(valkey, request_id="order-1", tenant="acme")


ALARMS: Final[dict[str, Callable[[Any], None]]] = {
    "ResponsesWorkerErrorBudgetBurnsFast": failing,
    "ResponsesWorkerErrorBudgetBurns": failing,
    "ResponsesWorkerErrorBudgetBurnsSlowly": failed_an_hour_ago,
    "ResponsesWorkerQueueAge": late,
    "ResponsesWorkerNothingMoving": nothing_moves,
    "ResponsesWorkerLaneUnserved": unserved,
    "ResponsesWorkerSilent": lambda _: None,
    "ResponsesWorkerUpstreamShut": shut,
    "ResponsesWorkerPaused": paused,
    "ResponsesWorkerRedisLost": lambda _: None,
    "ResponsesWorkerResultsUnread": unread,
    "ResponsesWorkerDeadLetters": dead,
    "ResponsesWorkerCallsLost": lambda _: None,
}
