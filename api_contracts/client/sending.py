"""Enqueueing and cancelling, as steps."""

import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from api_contracts.celery_messages import encode, trace_headers
from api_contracts.client.bounds import BACKLOG_BYTES, BACKLOG_LIMIT
from api_contracts.client.effects import Ask, Command, Steps
from api_contracts.client.routing import cell_of
from api_contracts.client.waiting import FINAL
from api_contracts.generation import GenerationRequest
from api_contracts.outgoing import MAX_BODY, Contract, Outgoing, prepare
from api_contracts.queues import DELAYED, LANES, cancel_key, lane_list, request_key
from api_contracts.tickets import BackloggedError, Ticket

CANCELLED_FOR_S: Final = (7 * 24 + 1) * 3600
PIPELINED: Final = 500

SERVED_S: Final = 120.0
"""Each worker says every ten seconds which lanes it serves. The rest is room for clocks that differ."""

WARN_EVERY_S: Final = 60.0

_log: Final = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class Sender:
    """A client's tenant and limits, and the lanes that it has warned of."""

    tenant: str
    cells: int = 1
    backlog_limit: int = BACKLOG_LIMIT
    backlog_bytes: int = BACKLOG_BYTES
    max_body: int = MAX_BODY
    contract: Contract = GenerationRequest
    _warned: dict[str, float] = field(default_factory=dict[str, float])

    def enqueue_many(self, envelopes: Iterable[Mapping[str, Any]], lane: str, priority: int) -> Steps[list[Ticket]]:
        checks: Any = {"tenant": self.tenant, "max_body": self.max_body, "contract": self.contract}
        prepared = [prepare(envelope, **checks) for envelope in envelopes]
        tickets: dict[str, Ticket] = {}
        for cell, chunk in self._chunks(prepared):
            for one, ticket in zip(chunk, (yield from self._push(cell, chunk, lane, priority)), strict=True):
                tickets[one.task_id] = ticket
        return [tickets[one.task_id] for one in prepared]

    def cancel(self, request_id: str, tenant: str | None) -> Steps[None]:
        tenant = tenant or self.tenant
        cell = cell_of(tenant, request_id, self.cells)
        look = ("HMGET", request_key(tenant, request_id), "state", "lane", "token")
        ((state, lane, token),) = yield Ask((look,), cell)
        if state in FINAL:
            return
        yield Ask((("SET", cancel_key(tenant, request_id), 1, "EX", CANCELLED_FOR_S),), cell)
        if state == b"parked":  # wake it, so that its answer is not late
            yield Ask((("ZADD", f"{DELAYED}{lane.decode()}", "XX", 0, token),), cell)

    def _chunks(self, prepared: Sequence[Outgoing]) -> Iterator[tuple[int, list[Outgoing]]]:
        for cell in range(self.cells):
            own = [one for one in prepared if cell_of(one.ticket.tenant, one.ticket.request_id, self.cells) == cell]
            for start in range(0, len(own), PIPELINED):
                yield cell, own[start : start + PIPELINED]

    def _push(self, cell: int, prepared: list[Outgoing], lane: str, priority: int) -> Steps[list[Ticket]]:
        target = lane_list(lane, priority)
        looks: list[Command] = [("LLEN", target), ("MEMORY", "USAGE", target, "SAMPLES", 5), ("ZSCORE", LANES, lane)]
        looks += [_known(one.ticket) for one in prepared]
        length, taken, served, *known = yield Ask(tuple(looks), cell, errors_as_replies=True)
        for refused in (reply for reply in (length, *known) if isinstance(reply, Exception)):
            raise refused
        self._check_backlog(lane, length + len(prepared), taken)
        self._check_served(lane, served)
        headers = trace_headers()
        messages = [
            encode(one.document, task_id=one.task_id, lane=lane, priority=priority, headers=headers) for one in prepared
        ]
        yield Ask((("LPUSH", target, *messages),), cell)
        return [
            replace(one.ticket, outdated=token if state in FINAL and retryable == b"1" else None)
            for one, (state, token, retryable) in zip(prepared, known, strict=True)
        ]

    def _check_backlog(self, lane: str, messages: int, taken: object) -> None:
        if messages > self.backlog_limit:
            raise BackloggedError(f"lane {lane} would hold {messages} messages, the limit is {self.backlog_limit}")
        if isinstance(taken, int) and taken > self.backlog_bytes:  # an older ACL may not let us ask
            raise BackloggedError(f"lane {lane} holds {taken} bytes, the limit is {self.backlog_bytes}")

    def _check_served(self, lane: str, score: object) -> None:
        if isinstance(score, Exception):  # an older ACL may not let us ask
            return
        since_s = time.time() - float(score) / 1000 if isinstance(score, bytes | float) else None
        now = time.monotonic()
        if (since_s is None or since_s > SERVED_S) and now - self._warned.get(lane, -WARN_EVERY_S) >= WARN_EVERY_S:
            self._warned[lane] = now
            _log.warning("no worker serves lane %s at the moment; requests on it wait until one does", lane)


def _known(ticket: Ticket) -> Command:
    return ("HMGET", request_key(ticket.tenant, ticket.request_id), "state", "token", "retryable")
