"""The events of a streamed request as they come, as steps."""

import time
from collections.abc import Iterator
from typing import Final

from api_contracts.client.effects import Emit, Notice, Steps, Wait
from api_contracts.client.routing import cell_of
from api_contracts.client.waiting import FINAL, look, taken
from api_contracts.queues import delta_stream, request_key
from api_contracts.tickets import Delta, NoAnswerError, NotAnsweredError, Ticket

PAGE: Final = 500
"""Entries of one look."""


def deltas(tenant: str, request_id: str, *, after: str, cells: int, timeout_s: float) -> Steps[None]:
    """Emits each Delta behind `after`. Raises NotAnsweredError and NoAnswerError."""
    stream, request = delta_stream(tenant, request_id), request_key(tenant, request_id)
    cell, notice = cell_of(tenant, request_id, cells), Notice()
    give_up_at, over, state = time.monotonic() + timeout_s, False, None
    due = {stream, request}
    while True:
        reads = {stream: ("XRANGE", stream, f"({after}", "+", "COUNT", PAGE), request: ("HMGET", request, "state")}
        wanted = [key for key in reads if key in due]
        replies = yield from look(notice, tuple(reads[key] for key in wanted), cell, give_up_at=give_up_at)
        found = dict(zip(wanted, replies, strict=True))
        (state,) = found.get(request, (state,))
        entries = found.get(stream, [])
        for delta in _read(entries):
            after = delta.id
            yield Emit(delta)
            if delta.type == "finished":
                return
        if entries:
            give_up_at, over = time.monotonic() + timeout_s, False
        if state in FINAL or len(entries) == PAGE:  # nobody may tell of more
            if over:
                raise NoAnswerError("this request was answered and nothing that it streamed is left to read")
            over = not entries  # perhaps it was answered between the two reads
            due = {stream, request}
            continue
        left_s = give_up_at - time.monotonic()
        if left_s <= 0:
            raise NotAnsweredError("streaming")
        yield Wait(notice, left_s)
        due = notice.heard() & reads.keys() or {stream, request}


def deltas_of(ticket: Ticket, *, after: str, cells: int, timeout_s: float) -> Steps[None]:
    """As `deltas`, and never those of an earlier run: a worker drops these as it takes the request."""
    yield from taken(ticket, cells=cells, timeout_s=timeout_s)
    yield from deltas(ticket.tenant, ticket.request_id, after=after, cells=cells, timeout_s=timeout_s)


def _read(entries: list[tuple[bytes, dict[bytes, bytes] | list[bytes]]]) -> Iterator[Delta]:
    for entry_id, pairs in entries:
        fields = pairs if isinstance(pairs, dict) else dict(zip(pairs[::2], pairs[1::2], strict=True))
        kind = fields.get(b"type", b"unknown").decode("utf-8", "replace")
        yield Delta(entry_id.decode(), kind, fields.get(b"data", b""))
