"""An hour in the life of a fleet, written as workers write it: for pages and pictures."""

import json
import math
import time
from typing import Any, Final

from support.dead_letters import bury, fail
from worker.storage import keys
from worker.telemetry.tally import bucket

CANARY: Final = "<img/src=x/onerror=document.title='owned'>"
"""Markup in every name that comes from outside."""
_FLEET: Final = keys.fleet("default")


def an_hour(valkey: Any, *, canary: str = "", now_s: float | None = None) -> None:
    """Traffic that grows, 429s in the middle, four lanes of which one stands still, three workers, dead letters.

    `canary` is put into every name.
    """
    now_ms = round((time.time() if now_s is None else now_s) * 1000)
    for ago in range(60):
        _minute(valkey, now_ms // 60_000 - ago, ago, canary)
    for number, (host, silent_ms) in enumerate(
        (("worker-6f9c-a", 300), ("worker-6f9c-b", 900), ("batch-58d-x", 14_000))
    ):
        _worker(valkey, f"{host}{canary}", number, now_ms - silent_ms)
    _messages(valkey, now_ms, canary)
    for number in range(4):
        fail(valkey, f"report-{number}{canary}", code=f"upstream_timeout{canary}")
    for number in range(3):
        bury(
            valkey, lane=f"interactive{canary}", reason=f"poison{canary}",
            request_id=f"invoice-{number}{canary}", tenant=f"acme{canary}", message=_celery_message(number),
        )  # fmt: skip


def _minute(valkey: Any, minute: int, ago: int, canary: str) -> None:
    busy = 260 + 120 * math.sin(ago / 9) + 2 * (60 - ago)
    throttled = max(0, 40 - 6 * abs(ago - 28))
    interactive, batch = round(busy), round(busy * 0.45)
    failed = 3 + (ago % 7) + (25 if 20 < ago < 26 else 0)
    slow = 1 + (0.9 if 22 < ago < 34 else 0)
    counts = {
        f"answers interactive{canary} completed": interactive,
        f"answers interactive{canary} failed": failed,
        "answers batch completed": batch,
        f"failed interactive{canary} upstream_timeout{canary}": failed // 2,
        f"failed interactive{canary} invalid_request": failed - failed // 2,
        f"throttled interactive{canary} 429": throttled,
        f"calls default{canary} ok": interactive + batch,
        f"calls default{canary} rate_limited": throttled,
        "calls spill ok": batch // 4,
    }
    for share, ms in ((0.5, 1400), (0.3, 2600 + 20 * (ago % 5)), (0.12, 4800), (0.08, 7500 + 90 * (ago % 9))):
        counts[f"total interactive{canary} {bucket(ms * slow)}"] = round(interactive * share)
        counts[f"called default{canary} {bucket(ms * slow * 0.8)}"] = round(interactive * share)
        counts[f"called spill {bucket(ms * 1.4)}"] = round(batch * share / 4)
    valkey.hset(f"{_FLEET['history']}:{minute}", mapping=counts)
    tenants = {"acme": 90, "globex": 61, "initech": 40, "umbrella": 22, "hooli": 9, f"stark{canary}": 4}
    valkey.zadd(f"{_FLEET['tenants']}:{minute}", tenants)


def _worker(valkey: Any, host: str, number: int, at_ms: int) -> None:
    lanes = {"batch": 1} if number == 2 else {"interactive": 4, "batch": 1}
    worker_says(
        valkey, f"{host}:{number}", at_ms,
        host=host, pid=7 + number, lanes=lanes, up_s=86_000 - 9000 * number,
        holds={lane: [3, 38 - 11 * number] for lane in lanes},
        per_second=dict.fromkeys(lanes, 3.4 - number),
    )  # fmt: skip


def worker_says(valkey: Any, worker: str, at_ms: int, **said: Any) -> None:
    """One worker's report, as `Registrar` writes it."""
    plain = {
        "v": 1, "host": worker, "pid": 7, "version": "0.1.0", "lanes": {"interactive": 4, "batch": 1},
        "concurrency": 100, "up_s": 60, "draining": False, "backlog": "", "holds": {}, "per_second": {},
    }  # fmt: skip
    valkey.zadd(_FLEET["workers"], {worker: at_ms})
    valkey.hset(_FLEET["loads"], worker, f"1 {json.dumps(plain | said)}")


def minute_counts(valkey: Any, ago: int, counts: dict[str, int]) -> None:
    """Counts of the minute that was so many minutes ago."""
    valkey.hset(f"{_FLEET['history']}:{int(time.time() // 60) - ago}", mapping=counts)


def _messages(valkey: Any, now_ms: int, canary: str) -> None:
    valkey.rpush("responses.batch", *(f"{{}}{n}" for n in range(420)))
    valkey.rpush("responses.reports", *(_celery_message(n) for n in range(57)))
    for lane, held in (("interactive", 82), ("batch", 44)):
        valkey.hset(f"responses:inflight:{lane}", mapping={f"token-{n}": "{}" for n in range(held)})
        valkey.zadd(f"responses:leases:{lane}", {f"token-{n}": now_ms + 15_000 for n in range(held)})
    valkey.zadd("responses:delayed:batch", {f"later-{n}": now_ms + 60_000 for n in range(12)})
    valkey.zadd(
        keys.FLEET["moved"], {"interactive": now_ms - 400, "batch": now_ms - 900, "reports": now_ms - 7_600_000}
    )
    valkey.zadd(keys.FLEET["lanes"], {"interactive": now_ms, "batch": now_ms, f"odd{canary}": now_ms - 60_000})
    minute = now_ms // 60_000
    quota = {"rpm": 900, "scale": 0.84, "in_flight_allowed": 200, "minute": minute, "requests_now": 310}
    valkey.hset("responses:quota:default", mapping=quota)
    valkey.zadd("responses:permits:default", {f"token-{n}": now_ms + 60_000 for n in range(126)})


def _celery_message(number: int) -> str:
    headers = {"id": f"task-{number}", "task": "responses.create"}
    return json.dumps(
        {"body": "W10=", "headers": headers, "properties": {"priority": 0}, "content-type": "application/json"}
    )
