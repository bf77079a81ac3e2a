"""The writes of a worker for one request, without a worker."""

import json
from pathlib import Path
from typing import Any

from api_contracts.client import Ticket
from api_contracts.queues import delta_stream, request_key, result_stream

RESULT: dict[str, Any] = json.loads((Path(__file__).parent.parent / "data" / "result.json").read_bytes())


def result_of(ticket: Ticket, **changed: Any) -> str:
    return json.dumps({**RESULT, "tenant": ticket.tenant, "request_id": ticket.request_id, **changed})


def move(redis: Any, ticket: Ticket, state: str) -> None:
    """As a worker that takes a request, or parks it."""
    fields = {"state": state, "token": "t-1", "fingerprint": ticket.fingerprint, "lane": "interactive"}
    redis.hset(request_key(ticket.tenant, ticket.request_id), mapping=fields)


def answer(redis: Any, ticket: Ticket, *, reply_to: str | None = None, **changed: Any) -> None:
    """As a worker that completes it: kept, and on its stream."""
    result = result_of(ticket, **changed)
    pipeline = redis.pipeline()
    fields = {"state": "completed", "token": "t-1", "fingerprint": ticket.fingerprint, "result": result}
    pipeline.hset(request_key(ticket.tenant, ticket.request_id), mapping=fields)
    pipeline.xadd(result_stream(reply_to), {"request_id": ticket.request_id, "result": result})
    pipeline.execute()


def stream(redis: Any, ticket: Ticket, number: int, kind: str = "response.output_text.delta") -> None:
    entry_id = "*" if kind == "finished" else f"1-{number}"
    redis.xadd(delta_stream(ticket.tenant, ticket.request_id), {"type": kind, "data": f'{{"n":{number}}}'}, id=entry_id)
