"""The story of one request: parse, claim, admit, call, report, answer.

Every exit is a Disposition. What follows from a claim or a call is decided in `policy.py`; here it is done.
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from api_contracts import MappedError
from api_contracts.queues import delta_stream
from worker.admission.grants import Ask, NotAdmitted, Reservation
from worker.admission.tokens import TokenEstimator, call_kind
from worker.gateway.upstream import Answer, Call
from worker.queue.claims import Claim, Refusal, WriteOutcome
from worker.queue.messages import Unreadable, decode
from worker.request.decisions import (
    BUG,
    EXPIRED,
    REFUSED,
    Abandon,
    Decision,
    Disposition,
    Finish,
    Park,
    Release,
)
from worker.request.events import RequestEvents
from worker.request.execution import Execution, Interruption
from worker.request.policy import SUSPECT_CRASHES, Policy, interrupted, invalid, not_admitted
from worker.request.ports import AdmissionPort, AdmissionQueuePort, LedgerPort, RelayPort, UpstreamPort
from worker.request.results import build_result
from worker.storage.scripts import ScriptError


@dataclass(slots=True)
class Processor:
    ledger: LedgerPort
    queues: AdmissionQueuePort
    admission: AdmissionPort
    upstream: UpstreamPort
    relay: RelayPort
    policy: Policy
    events: RequestEvents
    rng: random.Random = field(default_factory=random.Random)
    tokens: TokenEstimator = field(default_factory=TokenEstimator)
    _suspects: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def process(self, execution: Execution) -> Disposition:
        """Takes one delivery to exactly one end: an answer, a later try, another delivery's request, a dead letter.

        Raises ScriptError where the ledger refuses a write; the lease then brings the delivery back.
        """
        message = decode(execution.delivery.message, max_body=self.policy.max_body)
        if isinstance(message, Unreadable):
            await self.ledger.bury(execution.delivery, message.reason)
            return Disposition.DEAD_LETTERED
        execution.message = message
        claim = self.policy.claim(execution.delivery, message)
        try:
            if not message.identity.owned:
                return await self._refuse(execution, claim, invalid(message, message.violations))
            return await self._claim(execution, claim)
        except ScriptError:
            raise
        except Exception as bug:  # noqa: BLE001  # the caller gets an answer, and the events carry the bug
            self.events.request_crashed(execution, bug)
            if execution.claimed:
                return await self._conclude(execution, Finish("failed", BUG))
            return await self._refuse(execution, claim, BUG)

    async def _claim(self, execution: Execution, claim: Claim) -> Disposition:
        lease = await self.ledger.claim(execution.delivery, claim)
        if isinstance(lease, Refusal):
            error = REFUSED.get(lease)
            return await self._refuse(execution, claim, error) if error else Disposition(lease.lower())
        execution.adopt(lease)
        decision = self.policy.before_call(lease, execution.request)
        if decision is None and lease.crashes >= SUSPECT_CRASHES:
            return await self._run_alone(execution)
        return await self._conclude(execution, decision or await self._run(execution))

    async def _run_alone(self, execution: Execution) -> Disposition:
        """Runs when no other suspect of this process does; an interruption or the deadline ends the wait for that."""
        try:
            async with asyncio.timeout(execution.time_left_s):
                turn = await execution.unless_interrupted(self._suspects.acquire())
        except TimeoutError:
            return await self._conclude(execution, Finish("failed", EXPIRED))
        if isinstance(turn, Interruption):
            return await self._conclude(execution, interrupted(turn))
        try:
            return await self._conclude(execution, await self._run(execution))
        finally:
            self._suspects.release()

    async def _run(self, execution: Execution) -> Decision:
        """Admits and calls until something else follows than another call."""
        while True:
            admitted = await self._admit(execution)
            if not isinstance(admitted, Reservation):
                return not_admitted(admitted)
            call = await self._call(execution)
            await self.admission.report(admitted, call)
            if call is None:
                return interrupted(execution.interruption) if execution.interruption else Abandon()
            execution.failures, decision = self.policy.after_call(
                execution, call.outcome, probe=bool(admitted.gate), rng=self.rng
            )
            if decision is not None:
                return decision

    async def _admit(self, execution: Execution) -> Reservation | NotAdmitted | Interruption:
        message = execution.request
        ask = Ask(
            token=execution.delivery.token,
            tokens=self.tokens.estimate(len(message.body), message.max_output_tokens),
            tenant=message.tenant,
            body=message.fingerprint,
            call_kind=call_kind("", message.max_output_tokens),
            enqueued_at_ms=execution.lease.enqueued_at_ms,
            ends_ms=execution.lease.deadline_ms,
            patience_ms=self.policy.patience_s(execution.delivery.lane) * 1000,
            failures=execution.failures,
        )
        waiting = self.queues.admit(execution.delivery.lane, ask, within_s=max(0.0, execution.time_left_s))
        admitted = await execution.unless_interrupted(waiting)
        if not isinstance(admitted, Interruption):
            execution.waited(admitted.waited_ms)
        return admitted

    async def _call(self, execution: Execution) -> Call | None:
        """One attempt, recorded before its call; None where no call was made."""
        if execution.interruption is not None:
            return None
        previous = execution.previous
        begun = await self.ledger.begin(execution.lease, execution.start_attempt(self.upstream.name), previous)
        if begun is not WriteOutcome.OK:
            return None
        message = execution.request
        on_event = self._watch(execution) if message.streams else None
        timeout_s = self.policy.timeout_s(message, execution.time_left_s)
        calling = self.upstream.create(message.body, stream=message.streams, timeout_s=timeout_s, on_event=on_event)
        call = await execution.unless_interrupted(calling)
        if on_event is not None:
            await self.relay.flushed()
        if isinstance(call, Interruption):
            return execution.end_attempt(None)
        self.events.call_ended(execution, call)
        if isinstance(call.outcome, Answer) and call.outcome.usage:
            self.tokens.learn(len(message.body), message.max_output_tokens, call.outcome.usage)
        return execution.end_attempt(call)

    def _watch(self, execution: Execution) -> Callable[[bytes], None]:
        """Takes the events of a streamed call to the request's own stream."""
        message = execution.request
        deltas = self.relay.open(delta_stream(message.tenant, message.request_id), execution.number)
        if execution.number > 1:
            deltas.restarted(execution.last_failure.code if execution.last_failure else None)
        return deltas.event

    async def _refuse(self, execution: Execution, claim: Claim, error: MappedError) -> Disposition:
        """Answers a delivery that does not own its request id."""
        execution.finish(error)
        refusal = build_result(execution, Finish("failed", error))
        await self.ledger.answer(execution.delivery, claim, refusal.result)
        return Disposition.FAILED

    async def _conclude(self, execution: Execution, decision: Decision) -> Disposition:
        """Writes what was decided, unless another delivery owns the request by now."""
        written = await self._write(execution, decision)
        return decision.disposition if written is WriteOutcome.OK else Disposition.SUPERSEDED

    async def _write(self, execution: Execution, decision: Decision) -> WriteOutcome:
        lease, throttle_ms, history = execution.lease, execution.throttle_ms, execution.previous
        match decision:
            case Finish(error=error, dead=dead):
                execution.finish(error)
                result = build_result(execution, decision)
                return await self.ledger.complete(lease, result, kept_ms=self.policy.kept_ms, dead=dead)
            case Park(delay_ms=delay_ms):
                return await self.ledger.park(
                    lease, delay_ms=delay_ms, failures=execution.failures, throttle_ms=throttle_ms, history=history
                )
            case Release():
                return await self.ledger.release(lease, throttle_ms=throttle_ms, history=history)
            case Abandon():
                return WriteOutcome.SUPERSEDED
