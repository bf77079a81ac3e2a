"""A client for services in Python: enqueue, wait, read results, cancel, watch tokens.

    with ResponsesClient("redis://localhost:6379/0") as client:
        ticket = client.enqueue({"model": "gpt-5.4-mini", "input": [{"role": "user", "content": "Hello!"}]})
        print(client.wait(ticket, timeout_s=60).response.output_text)

It talks to the workers through Redis alone, so it needs no worker code, and every method is a few commands that any
language can send: docs/use/enqueue.md and results.md.
"""

import logging
import time
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final, Self

from redis import Redis

from api_contracts.celery_messages import encode, trace_headers
from api_contracts.generation import GenerationResult
from api_contracts.outgoing import MAX_BODY, Outgoing, prepare
from api_contracts.polling import entries_of, make_group
from api_contracts.queues import (
    DEFAULT_TENANT,
    DELAYED,
    STREAMS,
    UNREADABLE_STREAM,
    cancel_key,
    delta_stream,
    lane_list,
    request_key,
    result_stream,
)
from api_contracts.tickets import BackloggedError, Delta, NoAnswerError, NotAnsweredError, Ticket
from api_contracts.violations import ContractViolation
from api_contracts.watching import Reader, Watches

__all__ = ["BackloggedError", "Delta", "NoAnswerError", "NotAnsweredError", "ResponsesClient", "Ticket"]

BACKLOG_LIMIT: Final = 100_000
"""Messages on a lane at which `enqueue` says no: the workers are hours behind, and Redis is not a disk."""

BACKLOG_BYTES: Final = 2 * 1024**3
"""Memory of a lane, as Redis estimates it, at which `enqueue` says no as well."""

UNREADABLE_KEPT: Final = 10_000

ABANDONED_MS: Final = 60_000
"""A result read this long ago and never acknowledged belongs to a consumer that is gone."""

CANCELLED_FOR_S: Final = (7 * 24 + 1) * 3600
_PIPELINED: Final = 500
_log: Final = logging.getLogger(__name__)
_BLOCK_MS: Final = 1000
_FINAL: Final = frozenset({b"completed", b"incomplete", b"failed"})


class ResponsesClient:
    """One connection pool; safe to share between threads. `redis` may also be a client you already have."""

    def __init__(
        self,
        redis: Any,
        *,
        tenant: str = DEFAULT_TENANT,
        backlog_limit: int = BACKLOG_LIMIT,
        backlog_bytes: int = BACKLOG_BYTES,
        max_body: int = MAX_BODY,
    ) -> None:
        self._redis = _connected(redis) if isinstance(redis, str) else redis
        self._owned = isinstance(redis, str)
        self._watches = Watches(self._redis)
        self._tenant = tenant
        self._backlog_limit = backlog_limit
        self._backlog_bytes = backlog_bytes
        self._max_body = max_body

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._watches.close()
        if self._owned:
            self._redis.close()

    def enqueue(
        self, body: Mapping[str, Any], *, lane: str = "interactive", priority: int = 0, **envelope: Any
    ) -> Ticket:
        """Enqueues one request; `envelope` holds further fields of GenerationRequest.

        Raises ContractViolation, and enqueues nothing, where a worker would refuse the request; BackloggedError
        where the lane is full.
        """
        (ticket,) = self.enqueue_many([{"body": body, **envelope}], lane=lane, priority=priority)
        return ticket

    def enqueue_many(
        self, envelopes: Iterable[Mapping[str, Any]], *, lane: str = "interactive", priority: int = 0
    ) -> list[Ticket]:
        """Enqueues many, five hundred a round trip, in order; all are checked before any is sent."""
        prepared = [prepare(envelope, tenant=self._tenant, max_body=self._max_body) for envelope in envelopes]
        tickets: list[Ticket] = []
        for start in range(0, len(prepared), _PIPELINED):
            tickets += self._push(prepared[start : start + _PIPELINED], lane, priority)
        return tickets

    def wait(
        self, ticket: Ticket, *, timeout_s: float, on_state: Callable[[str | None], None] | None = None
    ) -> GenerationResult:
        """The result of one request, as soon as it is there; `on_state` hears of each of its states.

        Raises NotAnsweredError after `timeout_s`, and NoAnswerError where waiting longer is of no use.
        """
        return GenerationResult.from_entry({"result": self.wait_raw(ticket, timeout_s=timeout_s, on_state=on_state)})

    def wait_raw(
        self, ticket: Ticket, *, timeout_s: float, on_state: Callable[[str | None], None] | None = None
    ) -> bytes:
        """As `wait`, but the JSON as the worker wrote it."""
        state: str | None = None
        for reader in self._watches.turns(timeout_s):
            state, result = _look(reader, ticket)
            if result is not None:
                return result
            if on_state:
                on_state(state)
        raise NotAnsweredError(state)

    def results(
        self,
        group: str,
        *,
        reply_to: str | None = None,
        consumer: str | None = None,
        idle_s: float | None = None,
        take_over: bool = False,
    ) -> Generator[GenerationResult]:
        """Results for a consumer group, each acknowledged when the loop asks for the next one.

        Every result comes at least once: one whose reader died before that is given to another after a minute.
        An entry that is no result of this contract is copied to the stream `responses:unreadable`, logged and passed
        over.
        Ends after `idle_s` without a result; never by default. `take_over` claims at once what an earlier reader
        left: for a group that has one reader at a time.
        """
        stream, name = result_stream(reply_to), consumer or f"client-{uuid.uuid4().hex[:12]}"
        make_group(self._redis, stream, group)
        abandoned_ms = 0 if take_over else ABANDONED_MS
        block_ms = _BLOCK_MS if idle_s is None else max(1, min(_BLOCK_MS, round(idle_s * 1000)))
        quiet_since = time.monotonic()
        while idle_s is None or time.monotonic() - quiet_since < idle_s:
            for entry_id, fields in self._claimed_or_new(stream, group, name, abandoned_ms, block_ms):
                try:
                    result = GenerationResult.from_entry(fields)
                except ContractViolation as broken:
                    self._set_aside(stream, group, entry_id, fields, broken)
                else:
                    yield result
                self._redis.xack(stream, group, entry_id)
                quiet_since = time.monotonic()

    def _set_aside(
        self, stream: str, group: str, entry_id: bytes, fields: Mapping[bytes, bytes], broken: ContractViolation
    ) -> None:
        origin = {"stream": stream, "group": group, "entry": entry_id, "reason": str(broken)[:500]}
        _log.error("unreadable result %s in %s, kept in %s", entry_id.decode(), stream, UNREADABLE_STREAM)
        self._redis.xadd(UNREADABLE_STREAM, {**fields, **origin}, maxlen=UNREADABLE_KEPT, approximate=True)

    def drop_results(self, reply_to: str) -> None:
        """Removes a stream of one's own, once everything on it has been used."""
        self._redis.delete(result_stream(reply_to))
        self._redis.srem(STREAMS, result_stream(reply_to))

    def cancel(self, request_id: str, *, tenant: str | None = None) -> None:
        """Cancels a request, wherever it is: queued, parked or in flight. It is answered `cancelled`, once.

        A request that is already answered is not touched.
        """
        tenant = tenant or self._tenant
        state, lane, token = self._redis.hmget(request_key(tenant, request_id), "state", "lane", "token")
        if state in _FINAL:
            return
        self._redis.set(cancel_key(tenant, request_id), 1, ex=CANCELLED_FOR_S)
        if state == b"parked":  # wake it, so that its answer is not late
            self._redis.zadd(f"{DELAYED}{lane.decode()}", {token: 0}, xx=True)

    def deltas(
        self, request: Ticket | str, *, tenant: str | None = None, after: str = "0", timeout_s: float = 600
    ) -> Generator[Delta]:
        """The events of a request with `stream: true` as they come, the last one being `finished`.

        After `restarted` forget what came before: an attempt was cut short. At a `gap` events are missing, because
        Redis was slow; the result has all. `after` resumes behind an id. By its
        ticket, unlike by its id, a request is never shown what another one streamed under its id before.
        Raises NotAnsweredError when nothing came for `timeout_s`, and NoAnswerError where nothing will.
        """
        if isinstance(request, Ticket):
            self._wait_until_taken(request, timeout_s)
            request, tenant = request.request_id, request.tenant
        tenant = tenant or self._tenant
        stream, heard, over = delta_stream(tenant, request), time.monotonic(), False
        while True:
            entries = entries_of(self._redis.xread({stream: after}, count=100, block=_BLOCK_MS))
            for entry_id, fields in entries:
                after, heard = entry_id.decode(), time.monotonic()
                delta = Delta(
                    after, fields.get(b"type", b"unknown").decode("utf-8", "replace"), fields.get(b"data", b"")
                )
                yield delta
                if delta.type == "finished":
                    return
            if over and not entries:
                raise NoAnswerError("this request was answered and nothing that it streamed is left to read")
            if time.monotonic() - heard > timeout_s:
                raise NotAnsweredError("streaming")
            over = not entries and self._redis.hget(request_key(tenant, request), "state") in _FINAL

    def _wait_until_taken(self, ticket: Ticket, timeout_s: float) -> None:
        """From then on the stream of its id is its own: the worker drops an earlier one as it takes a request."""
        for reader in self._watches.turns(timeout_s):
            state, _ = _look(reader, ticket)
            if state is not None:
                return
        raise NotAnsweredError(None)

    def _push(self, prepared: list[Outgoing], lane: str, priority: int) -> list[Ticket]:
        target = lane_list(lane, priority)
        looking = self._redis.pipeline(transaction=False)
        looking.llen(target)
        looking.memory_usage(target, samples=5)
        for one in prepared:
            looking.hmget(request_key(one.ticket.tenant, one.ticket.request_id), "state", "token", "retryable")
        length, taken, *known = looking.execute(raise_on_error=False)
        for refused in (reply for reply in (length, *known) if isinstance(reply, Exception)):
            raise refused
        self._check_backlog(lane, length + len(prepared), taken)
        headers = trace_headers()
        messages = [
            encode(one.document, task_id=one.task_id, lane=lane, priority=priority, headers=headers) for one in prepared
        ]
        self._redis.lpush(target, *messages)
        return [
            replace(one.ticket, outdated=token if state in _FINAL and retryable == b"1" else None)
            for one, (state, token, retryable) in zip(prepared, known, strict=True)
        ]

    def _check_backlog(self, lane: str, messages: int, taken: object) -> None:
        if messages > self._backlog_limit:
            raise BackloggedError(f"lane {lane} would hold {messages} messages, the limit is {self._backlog_limit}")
        if isinstance(taken, int) and taken > self._backlog_bytes:  # an older ACL may not let us ask
            raise BackloggedError(f"lane {lane} holds {taken} bytes, the limit is {self._backlog_bytes}")

    def _claimed_or_new(
        self, stream: str, group: str, consumer: str, abandoned_ms: int, block_ms: int
    ) -> Iterator[tuple[bytes, dict[bytes, bytes]]]:
        _, abandoned, _ = self._redis.xautoclaim(stream, group, consumer, abandoned_ms, count=10)
        yield from ((entry_id, fields) for entry_id, fields in abandoned if fields)
        yield from entries_of(self._redis.xreadgroup(group, consumer, {stream: ">"}, count=10, block=block_ms))


def _connected(url: str) -> Any:
    client: Any = Redis
    return client.from_url(url, socket_timeout=10, health_check_interval=10)


def _look(reader: Reader, ticket: Ticket) -> tuple[str | None, bytes | None]:
    key = request_key(ticket.tenant, ticket.request_id)
    state, token, kept, result = reader.hmget(key, "state", "token", "fingerprint", "result")
    if state is None:
        return None, None
    if (kept or b"").decode() != ticket.fingerprint:
        raise NoAnswerError("duplicate_conflict: this request_id belongs to a request with another body")
    if token == ticket.outdated:
        return None, None
    if state not in _FINAL:
        return state.decode(), None
    if result is None:
        raise NoAnswerError("this request_id was answered before and its result is no longer kept")
    return state.decode(), result
