"""Waiting for answers, as steps: a look at every request, and another look at each whose key changed."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from api_contracts.client.effects import Command, Look, LostError, Notice, Replies, Steps, Wait
from api_contracts.client.routing import cell_of
from api_contracts.queues import request_key
from api_contracts.tickets import ConflictError, ForgottenError, NoAnswerError, NotAnsweredError, Ticket

FINAL: Final = frozenset({b"completed", b"incomplete", b"failed"})

OnState = Callable[[str | None], None]
Answer = bytes | NoAnswerError | NotAnsweredError

_FIELDS: Final = ("state", "token", "fingerprint", "result", "mark")
_LOOKED_AT: Final = 500
_FIRST_PAUSE_S: Final = 0.05
_LAST_PAUSE_S: Final = 1.0


def look(notice: Notice, commands: tuple[Command, ...], cell: int, *, give_up_at: float) -> Steps[Replies]:
    """The replies; looks again while Redis is away, until the time is up: then raises redis-py's error."""
    pause_s = _FIRST_PAUSE_S
    while True:
        try:
            return (yield Look(notice, commands, cell))
        except LostError as lost:
            if time.monotonic() + pause_s >= give_up_at:
                raise lost.__cause__ or lost from None
        yield Wait(Notice(), pause_s)
        pause_s = min(2 * pause_s, _LAST_PAUSE_S)


@dataclass(slots=True)
class _Expected:
    """One request, and its tickets by their place in the list: the same one may have been enqueued twice."""

    key: str
    cell: int
    tickets: dict[int, Ticket] = field(default_factory=dict[int, Ticket])


def answers(
    tickets: Sequence[Ticket], *, cells: int, timeout_s: float, on_state: OnState | None = None
) -> Steps[list[Answer]]:
    """The JSON of each answer, or why there is none, in the order of the tickets."""
    give_up_at, notice = time.monotonic() + timeout_s, Notice()
    waiting, found = _expected(tickets, cells), list[Answer](NotAnsweredError(None) for _ in tickets)
    due = set(waiting)
    while True:
        for expected, reply in (yield from _looked(notice, [waiting[key] for key in due], give_up_at)):
            for place, ticket in list(expected.tickets.items()):
                found[place] = answer = read(reply, ticket)
                if not isinstance(answer, NotAnsweredError):
                    del expected.tickets[place]
                elif on_state:
                    on_state(answer.state)
            if not expected.tickets:
                del waiting[expected.key]
        left_s = give_up_at - time.monotonic()
        if not waiting or left_s <= 0:
            return found
        yield Wait(notice, left_s)
        news = notice.heard()
        due = news & waiting.keys() if news else set(waiting)  # the last look, when the time is up, is at all


def answer(ticket: Ticket, *, cells: int, timeout_s: float, on_state: OnState | None = None) -> Steps[bytes]:
    """The JSON of one answer. Raises NotAnsweredError and NoAnswerError."""
    (found,) = yield from answers([ticket], cells=cells, timeout_s=timeout_s, on_state=on_state)
    if isinstance(found, Exception):
        raise found
    return found


def taken(ticket: Ticket, *, cells: int, timeout_s: float) -> Steps[None]:
    """Returns once a worker has taken the request. Raises NotAnsweredError and ConflictError."""
    give_up_at, notice = time.monotonic() + timeout_s, Notice()
    expected = next(iter(_expected([ticket], cells).values()))
    while True:
        ((_, reply),) = yield from _looked(notice, [expected], give_up_at)
        found = read(reply, ticket)
        if not isinstance(found, NotAnsweredError) or found.state is not None:
            if isinstance(found, ConflictError):
                raise found
            return
        left_s = give_up_at - time.monotonic()
        if left_s <= 0:
            raise found
        yield Wait(notice, left_s)
        notice.heard()


def read(reply: Sequence[Any], ticket: Ticket) -> Answer:
    """The answer, or the reason for none, that the fields of a request mean to this ticket."""
    state, token, fingerprint, result, mark = reply
    if state is None:
        return NotAnsweredError(None)
    body: bytes | None = fingerprint if mark is None else mark  # a mark is the beginning of a fingerprint
    if body is not None and not ticket.fingerprint.startswith(body.decode()):
        return ConflictError("duplicate_conflict: this request_id belongs to a request with another body")
    if token == ticket.outdated:
        return NotAnsweredError(None)
    if state not in FINAL:
        return NotAnsweredError(state.decode())
    if result is None:
        return ForgottenError("this request_id was answered before and its result is no longer kept")
    return result


def _expected(tickets: Iterable[Ticket], cells: int) -> dict[str, _Expected]:
    expected: dict[str, _Expected] = {}
    for place, ticket in enumerate(tickets):
        key = request_key(ticket.tenant, ticket.request_id)
        cell = cell_of(ticket.tenant, ticket.request_id, cells)
        expected.setdefault(key, _Expected(key, cell)).tickets[place] = ticket
    return expected


def _looked(
    notice: Notice, due: Sequence[_Expected], give_up_at: float
) -> Steps[list[tuple[_Expected, Sequence[Any]]]]:
    found: list[tuple[_Expected, Sequence[Any]]] = []
    for cell, chunk in _chunks(due):
        commands = tuple(("HMGET", one.key, *_FIELDS) for one in chunk)
        replies = yield from look(notice, commands, cell, give_up_at=give_up_at)
        found += zip(chunk, replies, strict=True)
    return found


def _chunks(due: Sequence[_Expected]) -> Iterator[tuple[int, Sequence[_Expected]]]:
    for cell in sorted({one.cell for one in due}):
        own = [one for one in due if one.cell == cell]
        for start in range(0, len(own), _LOOKED_AT):
            yield cell, own[start : start + _LOOKED_AT]
