"""The story of one request: parse, claim, admit, call, settle, complete.

Every exit is a Disposition. Three kinds of "no" are never mixed: *deferred* waits for capacity or for a repaired
credential and spends nothing, *retry* spends an attempt and comes back at a set time, *failed* is an answer.
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from api_contracts import ErrorCode, MappedError
from api_contracts.queues import delta_stream
from worker.admission.client import NotAdmitted, Reason, Reservation
from worker.admission.tokens import TokenEstimator
from worker.failures.failure import Failure, Route
from worker.gateway.upstream import Answer, Call
from worker.queue.claims import AttemptRecord, Claim, Refusal, WriteOutcome
from worker.queue.messages import Message, Unreadable, decode
from worker.request.execution import Execution, Interruption
from worker.request.policy import (
    BUG,
    CANCELLED,
    CONFLICT,
    EXPIRED,
    GONE,
    OVERSIZED,
    SUSPECT_CRASHES,
    THROTTLED,
    Policy,
)
from worker.request.ports import AdmissionPort, AdmissionQueuePort, LedgerPort, RelayPort, UpstreamPort
from worker.request.retries import Retry, RetryPolicy
from worker.storage.scripts import ScriptError


class Disposition(StrEnum):
    """What became of one delivery: metric label and log field."""

    COMPLETED = "completed"
    INCOMPLETE = "incomplete"
    FAILED = "failed"
    DUPLICATE = "duplicate"
    REPUBLISHED = "republished"
    BUSY = "busy"
    SUPERSEDED = "superseded"
    DELAYED = "delayed"
    RETRY_SCHEDULED = "retry_scheduled"
    RELEASED = "released"
    DEAD_LETTERED = "dead_lettered"


@dataclass(slots=True)
class Processor:
    ledger: LedgerPort
    rooms: AdmissionQueuePort
    admission: AdmissionPort
    upstream: UpstreamPort
    relay: RelayPort
    policy: Policy
    on_bug: Callable[[Exception], None]
    retries: RetryPolicy = field(default_factory=RetryPolicy)
    rng: random.Random = field(default_factory=random.Random)
    tokens: TokenEstimator = field(default_factory=TokenEstimator)
    _suspects: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def process(self, run: Execution) -> Disposition:
        """Takes one delivery to exactly one of: an answer, a later try, somebody else's, a dead letter."""
        message = decode(run.delivery.message, max_body=self.policy.max_body)
        if isinstance(message, Unreadable):
            await self.ledger.bury(run.delivery, message.reason)
            return Disposition.DEAD_LETTERED
        claim = self.policy.claim(run.delivery, message)
        lease = await self.ledger.claim(run.delivery, claim)
        run.message = message
        if isinstance(lease, Refusal):
            return await self._refused(run, claim, lease)
        run.adopt(lease)
        obstacle = self.policy.obstacle(lease, message)
        if obstacle is not None:
            return await self._fail(run, obstacle.error, dead=obstacle.dead)
        delay_ms = self.policy.delay_ms(lease, message)
        if delay_ms:
            return await self._park(run, delay_ms, Disposition.DELAYED)
        return await self._run(run, message)

    async def _run(self, run: Execution, message: Message) -> Disposition:
        try:
            if run.lease.crashes < SUSPECT_CRASHES:
                return await self._generate(run, message)
            return await self._alone(run, message)
        except ScriptError:
            raise  # the ledger's word on a write is not ours to answer
        except Exception as bug:  # noqa: BLE001  # whoever waits gets an answer, and on_bug tells us
            self.on_bug(bug)
            return await self._fail(run, BUG)

    async def _alone(self, run: Execution, message: Message) -> Disposition:
        """Runs when no other suspect of this process does; an interruption or the deadline ends the wait for that."""
        try:
            async with asyncio.timeout(run.time_left_s):
                turn = await run.unless_interrupted(self._suspects.acquire())
        except TimeoutError:
            return await self._fail(run, EXPIRED)
        if isinstance(turn, Interruption):
            return await self._interrupted(run, turn, None)
        try:
            return await self._generate(run, message)
        finally:
            self._suspects.release()

    async def _generate(self, run: Execution, message: Message) -> Disposition:
        """Admits and calls until there is something to say or a reason to wait elsewhere."""
        while True:
            grant = await self._admit(run, message)
            if not isinstance(grant, Reservation):
                return await self._not_admitted(run, grant)
            call = await self._call(run, message, grant)
            if isinstance(call, Disposition):
                return call
            if isinstance(call.outcome, Answer):
                return await self._answer(run, call.outcome)
            disposition = await self._failed_call(run, message, call.outcome, probe=bool(grant.gate))
            if disposition is not None:
                return disposition

    async def _admit(self, run: Execution, message: Message) -> Reservation | NotAdmitted | Interruption:
        waiting = self.rooms.admit(
            run.delivery.lane,
            run.delivery.token,
            self.tokens.estimate(len(message.body), message.max_output_tokens),
            within_s=max(0.0, run.time_left_s),
            patience_s=self.policy.patience_s(run.lease, run.now_ms),
        )
        grant = await run.unless_interrupted(waiting)
        if not isinstance(grant, Interruption):
            run.waited(grant.waited_ms)
        return grant

    async def _call(self, run: Execution, message: Message, reservation: Reservation) -> Call | Disposition:
        """One attempt: recorded, made, settled."""
        if run.interruption is not None:
            await self.admission.report(reservation, None)
            return await self._interrupted(run, run.interruption, None)
        begun = await self.ledger.begin(run.lease, run.start_attempt(self.upstream.name), run.previous)
        if begun is not WriteOutcome.OK:
            await self.admission.report(reservation, None)
            return Disposition.SUPERSEDED
        timeout_s = min(self.policy.timeout_s(message), max(0.001, run.time_left_s))
        watch = self._watch(run, message) if message.streams else None
        calling = self.upstream.create(message.body, stream=message.streams, timeout_s=timeout_s, on_event=watch)
        call = await run.unless_interrupted(calling)
        if watch is not None:
            await self.relay.flushed()
        if isinstance(call, Interruption):
            await self.admission.abandon(reservation)
            return await self._interrupted(run, call, run.end_attempt(self.upstream.name, None))
        run.end_attempt(self.upstream.name, call)
        await self._settle(message, reservation, call)
        return call

    def _watch(self, run: Execution, message: Message) -> Callable[[bytes], None]:
        deltas = self.relay.open(delta_stream(message.tenant, message.request_id), run.number)
        if run.number > 1:
            deltas.restarted(run.last_failure.code if run.last_failure else None)
        return deltas.event

    async def _settle(self, message: Message, reservation: Reservation, call: Call) -> None:
        """Tells the fleet what the call used and what it says of the upstream."""
        if isinstance(call.outcome, Answer) and call.outcome.usage:
            self.tokens.learn(len(message.body), message.max_output_tokens, call.outcome.usage)
        await self.admission.report(reservation, call)

    async def _answer(self, run: Execution, answer: Answer) -> Disposition:
        error = answer.failure.mapped() if answer.failure else None
        published = run.publish(answer.status, answer.raw, error)
        verdict = await self.ledger.complete(run.lease, published, kept_ms=self._kept_ms)
        return Disposition(answer.status) if verdict is WriteOutcome.OK else Disposition.SUPERSEDED

    async def _failed_call(
        self, run: Execution, message: Message, failure: Failure, *, probe: bool
    ) -> Disposition | None:
        """What a failure leads to; None asks for another admission right here."""
        if failure.route is Route.THROTTLE:
            return None
        out_of_order = failure.route is Route.CREDENTIAL or (probe and failure.route is Route.RETRY)
        if out_of_order and self.policy.patience_s(run.lease, run.now_ms) > 0:
            return await self._release(run, run.previous)
        if failure.route is not Route.RETRY:
            return await self._fail(run, failure.mapped(), failure.response)
        run.failures += 1
        decision = self.retries.decide(
            failure,
            failures=run.failures,
            max_attempts=self.policy.attempts(message),
            time_left_s=run.time_left_s,
            rng=self.rng,
        )
        if isinstance(decision, Retry):
            return await self._park(run, round(decision.delay_s * 1000), Disposition.RETRY_SCHEDULED)
        return await self._fail(run, decision.failure.mapped(), decision.failure.response)

    async def _refused(self, run: Execution, claim: Claim, refusal: Refusal) -> Disposition:
        error = {Refusal.CONFLICT: CONFLICT, Refusal.GONE: GONE}.get(refusal)
        if error is None:
            return Disposition(refusal.lower())
        await self.ledger.answer(run.delivery, claim, run.refuse(error))
        return Disposition.FAILED

    async def _not_admitted(self, run: Execution, grant: NotAdmitted | Interruption) -> Disposition:
        if isinstance(grant, Interruption):
            return await self._interrupted(run, grant, None)
        if grant.reason is Reason.GATE:
            return await self._fail(run, Failure.of(ErrorCode(grant.code)).mapped())
        return await self._fail(run, OVERSIZED if grant.reason is Reason.NEVER else THROTTLED)

    async def _interrupted(self, run: Execution, why: Interruption, history: AttemptRecord | None) -> Disposition:
        if why is Interruption.CANCELLED:
            return await self._fail(run, CANCELLED)
        return await self._release(run, history)

    async def _fail(
        self, run: Execution, error: MappedError, response: bytes | None = None, *, dead: str = ""
    ) -> Disposition:
        published = run.publish("failed", response, error)
        verdict = await self.ledger.complete(run.lease, published, kept_ms=self._kept_ms, dead=dead)
        return Disposition.FAILED if verdict is WriteOutcome.OK else Disposition.SUPERSEDED

    async def _park(self, run: Execution, delay_ms: int, disposition: Disposition) -> Disposition:
        verdict = await self.ledger.park(
            run.lease,
            delay_ms=delay_ms,
            failures=run.failures,
            throttle_ms=run.throttle_ms,
            history=run.previous,
        )
        return disposition if verdict is WriteOutcome.OK else Disposition.SUPERSEDED

    async def _release(self, run: Execution, history: AttemptRecord | None) -> Disposition:
        verdict = await self.ledger.release(run.lease, throttle_ms=run.throttle_ms, history=history)
        return Disposition.RELEASED if verdict is WriteOutcome.OK else Disposition.SUPERSEDED

    @property
    def _kept_ms(self) -> int:
        return round(self.policy.result_ttl.total_seconds() * 1000)
