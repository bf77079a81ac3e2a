# ruff: noqa: PLC0415  # redis and pydantic come with the first client: an import alone stays quick
"""The client for threads."""

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self, overload

from api_contracts.client.bounds import BACKLOG_BYTES, BACKLOG_LIMIT
from api_contracts.queues import DEFAULT_TENANT
from api_contracts.tickets import Delta, Ticket

if TYPE_CHECKING:
    from api_contracts.client.core import Outcome
    from api_contracts.generation import GenerationResult
    from api_contracts.outgoing import Contract


class ResponsesClient:
    """Enqueues requests and reads their results, from any thread.

    `redis` is a URL as workers take it (`redis://`, `rediss://`, `unix://`, `sentinel://`), a `redis.Redis` of your
    own, which you close yourself, or a list of either: one for each cell, in the same order in every service.
    `contract` is the fleet's, as `api_contracts.contract` returns it; by default the gateway's own.
    """

    def __init__(
        self,
        redis: Any,
        *,
        tenant: str = DEFAULT_TENANT,
        backlog_limit: int = BACKLOG_LIMIT,
        backlog_bytes: int = BACKLOG_BYTES,
        max_body: int | None = None,
        contract: "Contract | None" = None,
    ) -> None:
        from api_contracts.client import blocking, connecting
        from api_contracts.client.core import Core

        places = connecting.listed(redis)
        clients = [connecting.blocking(place) for place in places]
        self._owned = connecting.made(clients, places)
        self._driver = blocking.Driver(clients)
        limits: Any = {"max_body": max_body, "contract": contract}
        self._core = Core.of(self._driver.block_s, len(clients), tenant, backlog_limit, backlog_bytes, **limits)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections that this client has opened."""
        self._driver.close()
        for client in self._owned:
            client.close()

    def enqueue(
        self, body: Mapping[str, Any], *, lane: str = "interactive", priority: int = 0, **envelope: Any
    ) -> Ticket:
        """Enqueues one request; `envelope` holds further fields of GenerationRequest.

        Raises ContractViolation, and enqueues nothing, where a worker would refuse the request or does not know a
        field; BackloggedError where the lane is full. Logs a warning where no worker serves the lane.
        """
        (ticket,) = self.enqueue_many([{"body": body, **envelope}], lane=lane, priority=priority)
        return ticket

    def enqueue_many(
        self, envelopes: Iterable[Mapping[str, Any]], *, lane: str = "interactive", priority: int = 0
    ) -> list[Ticket]:
        """Enqueues many, five hundred a round trip, in order; all are checked before any is sent."""
        return self._driver.run(self._core.enqueue_many(envelopes, lane, priority))

    def wait(
        self, ticket: Ticket, *, timeout_s: float, on_state: Callable[[str | None], None] | None = None
    ) -> "GenerationResult":
        """The result of one request, milliseconds after it is published; `on_state` hears of each move before.

        Raises NotAnsweredError after `timeout_s`, and NoAnswerError where waiting longer is of no use.
        """
        return self._driver.run(self._core.wait(ticket, timeout_s, on_state))

    def wait_raw(
        self, ticket: Ticket, *, timeout_s: float, on_state: Callable[[str | None], None] | None = None
    ) -> bytes:
        """As `wait`, but the JSON as the worker wrote it."""
        return self._driver.run(self._core.wait_raw(ticket, timeout_s, on_state))

    @overload
    def wait_many(self, tickets: Sequence[Ticket], *, timeout_s: float) -> "list[GenerationResult]": ...
    @overload
    def wait_many(
        self, tickets: Sequence[Ticket], *, timeout_s: float, return_exceptions: Literal[True]
    ) -> "list[Outcome]": ...
    def wait_many(self, tickets: Sequence[Ticket], *, timeout_s: float, return_exceptions: bool = False) -> Any:
        """The results of many requests, in the order of their tickets.

        Where one has no answer, raises its error once all are answered or `timeout_s` is over; with
        `return_exceptions`, the error stands in its place.
        """
        return self._driver.run(self._core.wait_many(tickets, timeout_s, return_exceptions=return_exceptions))

    def results(
        self,
        group: str,
        *,
        reply_to: str | None = None,
        consumer: str | None = None,
        concurrency: int | None = None,
        idle_s: float | None = None,
        take_over: bool = False,
        abandoned_s: float | None = None,
    ) -> "Generator[GenerationResult]":
        """Results for a consumer group, each acknowledged when the loop asks for the next one.

        With `concurrency`, you acknowledge each yourself, from any thread (`acknowledge`), and the iterator waits
        while so many are not acknowledged.

        Every result comes at least once: one that was not acknowledged within `abandoned_s` (60) is given to another
        reader, or again to this one. An entry that is no result of this contract is copied to the stream
        `responses:unreadable`, logged and passed over.
        Ends after `idle_s` without a result; never by default. `take_over` claims at once what an earlier reader
        left: for a group that has one reader at a time. A reader that is closed leaves what it has not handed out to
        others at once.
        """
        return self._driver.iterate(
            self._core.results(
                group,
                reply_to=reply_to,
                consumer=consumer,
                idle_s=idle_s,
                take_over=take_over,
                concurrency=concurrency,
                abandoned_s=abandoned_s,
            )
        )

    def acknowledge(self, result: "GenerationResult") -> None:
        """Says that a result of `results(concurrency=...)` is done with: it comes to nobody again."""
        self._driver.run(self._core.acknowledge(result))

    def drop_results(self, reply_to: str) -> None:
        """Removes a stream of one's own, once everything on it has been used."""
        self._driver.run(self._core.drop_results(reply_to))

    def cancel(self, request_id: str, *, tenant: str | None = None) -> None:
        """Cancels a request, wherever it is: queued, parked or in flight. It is answered `cancelled`, once.

        A request that is already answered is not touched.
        """
        self._driver.run(self._core.cancel(request_id, tenant))

    def deltas(
        self, request: Ticket | str, *, tenant: str | None = None, after: str = "0", timeout_s: float = 600
    ) -> Generator[Delta]:
        """The events of a request with `stream: true` as they come, the last one being `finished`.

        After `restarted` forget what came before: an attempt was cut short. At a `gap` events are missing, because
        Redis was slow; the result has all. `after` resumes behind an id. By its
        ticket, unlike by its id, a request is never shown what another one streamed under its id before.
        Raises NotAnsweredError when nothing came for `timeout_s`, and NoAnswerError where nothing will.
        """
        return self._driver.iterate(self._core.deltas(request, tenant, after, timeout_s))
