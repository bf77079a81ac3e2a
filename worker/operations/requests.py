"""One request: where it is, why it is there, when it may start, and what became of it. Never its prompt."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from api_contracts.queues import CANCEL, DEFAULT_TENANT, cancel_key, lane_lists, request_key
from worker.operations.fleet_verdict import LaneView, span
from worker.operations.fleet_view import FleetView
from worker.queue.attempts import AttemptRecord
from worker.queue.commands import MARKER_MS
from worker.queue.messages import Message, decode
from worker.queue.queued_cancellation import spellings
from worker.storage import keys
from worker.storage.commands import Command, Script
from worker.storage.keys import PREFIXES
from worker.storage.replies import record
from worker.storage.scripts import call_blocking

PAGE: Final = 500
PAGES: Final = 200
"""Messages of a list that are looked through: a hundred thousand."""
SCANS: Final = 500
"""Pages of a thousand keys each, where no tenant is named."""
_ATTEMPTS: Final = 50
_FACTS: Final = ("state", "lane", "token", "deadline", "failures", "calling", "result")
FINAL: Final = frozenset({"completed", "incomplete", "failed"})


class Found(NamedTuple):
    """The place of an id in a page of a list, and the place where the next page begins; -1 is nowhere."""

    place: int
    go_on: int


FIND: Final = Command(
    name="find", keys=("list",), args={"id": str, "from": int, "count": int}, reply=record(Found), even_when_full=True
)
FINDING: Final = Script.load(
    "queue/lua/ledger.lua",
    "queue/lua/cancel_marks.lua",
    "operations/lua/finding.lua",
    commands=(FIND,),
    MARKER_MS=MARKER_MS,
    CANCEL=CANCEL,
    REQUEST_ID_SPELLED=spellings("request_id"),
    TENANT_SPELLED=spellings("tenant"),
    **PREFIXES,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestView:
    """One request at one moment. Times in ms of server time."""

    tenant: str
    request_id: str
    state: str
    """queued, running, calling, parked, completed, incomplete or failed."""
    lane: str
    position: int | None = None
    """Messages of its lane that are taken before it, where it is queued and was found."""
    why: str = ""
    """The reason why it is not answered yet."""
    starts_in_ms: int | None = None
    """Expected, where it waits and its lane moves."""
    deadline_ms: int | None = None
    cancelled: bool = False
    failures: int = 0
    attempts: Sequence[Mapping[str, Any]] = ()
    answer: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Of a request that is answered: outcome, error code and message, tokens, times; no text of the model."""
    message: bytes = field(default=b"", repr=False)
    """As its producer wrote it, where it could be found; it holds the prompt."""
    result: bytes = field(default=b"", repr=False)
    """As it was published, while it is kept."""


def tenants_of(redis: Any, request_id: str) -> list[str]:
    """The tenants with a request of this id that was claimed; the default tenant first."""
    if redis.exists(request_key(DEFAULT_TENANT, request_id)):
        return [DEFAULT_TENANT]
    cursor: int = 0
    found, suffix = list[str](), f":{request_id}"
    prefix = request_key("", "").removesuffix(":")
    for _ in range(SCANS):
        names: list[bytes]
        cursor, names = redis.scan(cursor, match=f"{prefix}*{suffix}", count=1_000)
        tenants = (name.decode(errors="replace").removeprefix(prefix).removesuffix(suffix) for name in names)
        found += [tenant.replace("%3A", ":") for tenant in tenants if ":" not in tenant]
        if cursor == 0:
            break
    return sorted(set(found))


def look(redis: Any, fleet: FleetView, request_id: str, tenant: str | None) -> RequestView | None:
    """The request, or None where neither its record nor its message can be found; raises redis.RedisError."""
    for owner in [tenant] if tenant else tenants_of(redis, request_id) or [DEFAULT_TENANT]:
        facts = _facts(redis, owner, request_id)
        if facts.get("state"):
            return _known(redis, fleet, owner, request_id, facts)
    return next(_queued(redis, fleet, request_id, tenant, fleet.lanes), None)


def _known(redis: Any, fleet: FleetView, tenant: str, request_id: str, facts: Mapping[str, str]) -> RequestView:
    lane = facts["lane"]
    in_line = _queued(redis, fleet, request_id, tenant, [lane] if facts["state"] == "queued" else [])
    waiting = next(in_line, None)
    state = "calling" if facts["state"] == "running" and int(facts["calling"] or 0) else facts["state"]
    why, starts_in_ms = (waiting.why, waiting.starts_in_ms) if waiting else _waits(redis, fleet, facts, state)
    return RequestView(
        tenant=tenant,
        request_id=request_id,
        state=state,
        lane=lane,
        position=waiting.position if waiting else None,
        why=why,
        starts_in_ms=starts_in_ms,
        deadline_ms=int(facts["deadline"]) if facts["deadline"] else None,
        cancelled=bool(redis.exists(cancel_key(tenant, request_id))),
        failures=int(facts["failures"] or 0),
        attempts=_attempts(redis, tenant, request_id, facts),
        answer=_answer(facts),
        message=waiting.message if waiting else b"",
        result=facts["result"].encode(),
    )


def _waits(redis: Any, fleet: FleetView, facts: Mapping[str, str], state: str) -> tuple[str, int | None]:
    if state in FINAL or state == "calling":
        return "", None
    if state == "parked":
        due = redis.zscore(keys.lane(facts["lane"])["delayed"], facts["token"])
        return (
            ("it comes back at a set time, after a failure or by its eta", max(0, round(due) - fleet.at_ms))
            if due
            else ("", None)
        )
    lane = fleet.lanes.get(facts["lane"])
    held = "a worker holds it"
    return f"{held}: {lane.cause.why}" if lane and lane.cause else f"{held} until its call may start", None


def _queued(
    redis: Any, fleet: FleetView, request_id: str, tenant: str | None, lanes: Sequence[str] | Mapping[str, LaneView]
) -> Iterator[RequestView]:
    """The message of a request that waits in one of these lanes."""
    for lane in lanes:
        ahead = 0
        for name in lane_lists(lane):
            place = _place(redis, name, request_id)
            raw: bytes = (redis.lindex(name, -1 - place) if place >= 0 else None) or b""
            message = decode(raw, max_body=len(raw)) if raw else None
            if (
                isinstance(message, Message)
                and request_id in (message.request_id, message.task_id)
                and tenant in (None, message.tenant)
            ):
                yield _waiting(fleet, lane, message, raw, ahead + place)
            ahead += int(redis.llen(name))


def _waiting(fleet: FleetView, lane: str, message: Message, raw: bytes, position: int) -> RequestView:
    view = fleet.lanes.get(lane)
    rate = view.per_second if view else 0.0
    deadline = message.terms.deadline if message.terms else None
    return RequestView(
        tenant=message.tenant,
        request_id=message.request_id,
        state="queued",
        lane=lane,
        position=position,
        why=view.cause.why if view and view.cause else "its turn has not come",
        starts_in_ms=round(position / rate * 1000) if rate else None,
        deadline_ms=round(deadline.timestamp() * 1000) if deadline else None,
        message=raw,
    )


def _place(redis: Any, name: str, request_id: str) -> int:
    at = 0
    for _ in range(PAGES):
        found = call_blocking(redis, FINDING, FIND, {"list": name}, **{"id": request_id, "from": at, "count": PAGE})
        if found.place >= 0 or found.go_on < 0:
            return found.place
        at = found.go_on
    return -1


def _facts(redis: Any, tenant: str, request_id: str) -> dict[str, str]:
    name = request_key(tenant, request_id)
    if redis.type(name) != b"hash":
        return {}
    values = redis.hmget(name, *_FACTS)
    return {fact: (value or b"").decode(errors="replace") for fact, value in zip(_FACTS, values, strict=True)}


def _attempts(redis: Any, tenant: str, request_id: str, facts: Mapping[str, str]) -> list[Mapping[str, Any]]:
    """Those of its record; once it is answered they are in its result."""
    if facts["result"]:
        return json.loads(facts["result"]).get("attempts", [])
    names = [f"attempt:{number}" for number in range(1, _ATTEMPTS + 1)]
    stored = redis.hmget(request_key(tenant, request_id), *names)
    return [json.loads(AttemptRecord.decode(raw).encode()) for raw in stored if raw]


def _answer(facts: Mapping[str, str]) -> Mapping[str, Any]:
    if facts["state"] not in FINAL:
        return {}
    if not facts["result"]:
        return {"outcome": facts["state"], "kept": False}
    result: dict[str, Any] = json.loads(facts["result"])
    error: dict[str, Any] = result.get("error") or {}
    response: dict[str, Any] = result.get("response") or {}
    told: dict[str, Any] = {
        "outcome": result["outcome"],
        "kept": True,
        "code": error.get("code"),
        "message": error.get("message"),
        "retryable": error.get("retryable"),
        "http_status": error.get("http_status"),
        "model": response.get("model"),
        "usage": response.get("usage"),
        "timing": result.get("timing"),
        "trace_id": result.get("trace_id"),
    }
    return {name: fact for name, fact in told.items() if fact is not None}


def summary(view: RequestView) -> str:
    """One line: the state, and why."""
    where = f" in lane {view.lane}" if view.lane else ""
    place = f", {view.position:,} messages before it" if view.position is not None else ""
    starts = f"; expected to start in {span(view.starts_in_ms)}" if view.starts_in_ms is not None else ""
    why = f": {view.why}" if view.why else ""
    return f"{view.state}{where}{place}{why}{starts}"
