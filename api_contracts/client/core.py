"""Everything that both clients do, as steps; imported with the first client, because it needs pydantic."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from api_contracts.client import reading, streaming, waiting
from api_contracts.client.effects import Steps
from api_contracts.client.sending import Sender
from api_contracts.client.waiting import OnState
from api_contracts.generation import GenerationRequest, GenerationResult
from api_contracts.outgoing import MAX_BODY, Contract
from api_contracts.queues import result_stream
from api_contracts.tickets import NoAnswerError, NotAnsweredError, Ticket

Outcome = GenerationResult | NoAnswerError | NotAnsweredError


@dataclass(frozen=True, slots=True)
class Core:
    """The logic of a client, for any number of cells."""

    sender: Sender
    block_s: float
    """The longest blocking read of the driver."""

    @classmethod
    def of(
        cls,
        block_s: float,
        cells: int,
        tenant: str,
        backlog_limit: int,
        backlog_bytes: int,
        *,
        max_body: int | None,
        contract: Contract | None,
    ) -> "Core":
        sender = Sender(
            tenant=tenant,
            cells=cells,
            backlog_limit=backlog_limit,
            backlog_bytes=backlog_bytes,
            max_body=MAX_BODY if max_body is None else max_body,
            contract=contract or GenerationRequest,
        )
        return cls(sender, block_s)

    @property
    def cells(self) -> int:
        return self.sender.cells

    def enqueue_many(self, envelopes: Iterable[Mapping[str, Any]], lane: str, priority: int) -> Steps[list[Ticket]]:
        return self.sender.enqueue_many(envelopes, lane, priority)

    def cancel(self, request_id: str, tenant: str | None) -> Steps[None]:
        return self.sender.cancel(request_id, tenant)

    def wait_raw(self, ticket: Ticket, timeout_s: float, on_state: OnState | None) -> Steps[bytes]:
        return waiting.answer(ticket, cells=self.cells, timeout_s=timeout_s, on_state=on_state)

    def wait(self, ticket: Ticket, timeout_s: float, on_state: OnState | None) -> Steps[GenerationResult]:
        return _parsed((yield from self.wait_raw(ticket, timeout_s, on_state)))

    def wait_many(
        self, tickets: Sequence[Ticket], timeout_s: float, *, return_exceptions: bool
    ) -> Steps[list[Outcome]]:
        answers = yield from waiting.answers(tickets, cells=self.cells, timeout_s=timeout_s)
        outcomes: list[Outcome] = [_parsed(answer) if isinstance(answer, bytes) else answer for answer in answers]
        for missing in (outcome for outcome in outcomes if isinstance(outcome, Exception)):
            if not return_exceptions:
                raise missing
        return outcomes

    def deltas(self, request: Ticket | str, tenant: str | None, after: str, timeout_s: float) -> Steps[None]:
        if isinstance(request, Ticket):
            return streaming.deltas_of(request, after=after, cells=self.cells, timeout_s=timeout_s)
        tenant = tenant or self.sender.tenant
        return streaming.deltas(tenant, request, after=after, cells=self.cells, timeout_s=timeout_s)

    def results(
        self,
        group: str,
        *,
        reply_to: str | None,
        consumer: str | None,
        idle_s: float | None,
        take_over: bool,
        concurrency: int | None,
        abandoned_s: float | None,
    ) -> Steps[None]:
        if concurrency is not None and concurrency < 1:
            raise ValueError("concurrency must be at least 1, or None")
        return reading.Reader(
            stream=result_stream(reply_to),
            group=group,
            consumer=consumer,
            cells=self.cells,
            idle_s=idle_s,
            take_over=take_over,
            held=reading.HandedOut(concurrency) if concurrency else None,
            abandoned_s=reading.ABANDONED_S if abandoned_s is None else abandoned_s,
            block_s=self.block_s,
        ).results()

    def acknowledge(self, result: GenerationResult) -> Steps[None]:
        return reading.acknowledge(result)

    def drop_results(self, reply_to: str) -> Steps[None]:
        return reading.drop(reply_to, self.cells)


def _parsed(answer: bytes) -> GenerationResult:
    return GenerationResult.from_entry({"result": answer})
