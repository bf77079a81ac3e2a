# ruff: noqa: PLC0415  # redis and pydantic come with the first client: an import alone stays quick
"""The client for an event loop."""

from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self, overload

from api_contracts.client.bounds import BACKLOG_BYTES, BACKLOG_LIMIT
from api_contracts.queues import DEFAULT_TENANT
from api_contracts.tickets import Delta, Ticket

if TYPE_CHECKING:
    from api_contracts.client.core import Outcome
    from api_contracts.generation import GenerationResult
    from api_contracts.outgoing import Contract


class AsyncResponsesClient:
    """As ResponsesClient, for the tasks of one event loop; `redis` may hold `redis.asyncio.Redis` clients.

    All that wait share one connection for each cell, so that a waiter costs nothing until its request moves.
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
        from api_contracts.client import asynchronous, connecting
        from api_contracts.client.core import Core

        places = connecting.listed(redis)
        clients = [connecting.asynchronous(place) for place in places]
        self._owned = connecting.made(clients, places)
        self._driver = asynchronous.Driver(clients)
        limits: Any = {"max_body": max_body, "contract": contract}
        self._core = Core.of(self._driver.block_s, len(clients), tenant, backlog_limit, backlog_bytes, **limits)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connections that this client has opened."""
        await self._driver.close()
        for client in self._owned:
            await client.aclose()

    async def enqueue(
        self, body: Mapping[str, Any], *, lane: str = "interactive", priority: int = 0, **envelope: Any
    ) -> Ticket:
        """Enqueues one request: `ResponsesClient.enqueue`."""
        (ticket,) = await self.enqueue_many([{"body": body, **envelope}], lane=lane, priority=priority)
        return ticket

    async def enqueue_many(
        self, envelopes: Iterable[Mapping[str, Any]], *, lane: str = "interactive", priority: int = 0
    ) -> list[Ticket]:
        """Enqueues many in order; all are checked before any is sent: `ResponsesClient.enqueue_many`."""
        return await self._driver.run(self._core.enqueue_many(envelopes, lane, priority))

    async def wait(
        self, ticket: Ticket, *, timeout_s: float, on_state: Callable[[str | None], None] | None = None
    ) -> "GenerationResult":
        """The result of one request, milliseconds after it is published: `ResponsesClient.wait`.

        To cancel the waiting task leaves the request as it is; `cancel` ends that.
        """
        return await self._driver.run(self._core.wait(ticket, timeout_s, on_state))

    async def wait_raw(
        self, ticket: Ticket, *, timeout_s: float, on_state: Callable[[str | None], None] | None = None
    ) -> bytes:
        """As `wait`, but the JSON as the worker wrote it."""
        return await self._driver.run(self._core.wait_raw(ticket, timeout_s, on_state))

    @overload
    async def wait_many(self, tickets: Sequence[Ticket], *, timeout_s: float) -> "list[GenerationResult]": ...
    @overload
    async def wait_many(
        self, tickets: Sequence[Ticket], *, timeout_s: float, return_exceptions: Literal[True]
    ) -> "list[Outcome]": ...
    async def wait_many(self, tickets: Sequence[Ticket], *, timeout_s: float, return_exceptions: bool = False) -> Any:
        """The results of many requests, in the order of their tickets: `ResponsesClient.wait_many`."""
        return await self._driver.run(self._core.wait_many(tickets, timeout_s, return_exceptions=return_exceptions))

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
    ) -> "AsyncGenerator[GenerationResult]":
        """Results for a consumer group, each acknowledged when the loop asks for the next one.

        With `concurrency`, you `await acknowledge(result)` yourself, in any task. All else is as in
        `ResponsesClient.results`. A task that is cancelled while it reads leaves what it has not handed out to others
        at once; so does `aclose()` (`contextlib.aclosing`).
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

    async def acknowledge(self, result: "GenerationResult") -> None:
        """Says that a result of `results(concurrency=...)` is done with: it comes to nobody again."""
        await self._driver.run(self._core.acknowledge(result))

    async def drop_results(self, reply_to: str) -> None:
        """Removes a stream of one's own, once everything on it has been used."""
        await self._driver.run(self._core.drop_results(reply_to))

    async def cancel(self, request_id: str, *, tenant: str | None = None) -> None:
        """Cancels a request, wherever it is: `ResponsesClient.cancel`."""
        await self._driver.run(self._core.cancel(request_id, tenant))

    def deltas(
        self, request: Ticket | str, *, tenant: str | None = None, after: str = "0", timeout_s: float = 600
    ) -> AsyncGenerator[Delta]:
        """The events of a request with `stream: true` as they come: `ResponsesClient.deltas`."""
        return self._driver.iterate(self._core.deltas(request, tenant, after, timeout_s))
