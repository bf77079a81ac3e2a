"""One request from its delivery to its end: parse, claim, admit, call, report, answer.

Every exit is a Disposition. This module carries out decisions; `policy.py` makes those that follow from a claim or a
call, and `waits.py` those that follow where no call was admitted.
"""

import asyncio
import random
from dataclasses import dataclass, field

from api_contracts import MappedError
from api_contracts.queues import result_stream
from worker.admission.grants import Reservation
from worker.admission.tokens import TokenEstimator
from worker.checks.checker import Checker
from worker.gateway.upstream import Answer, Call
from worker.queue.claims import Claim, Lease, Refusal, WriteOutcome
from worker.queue.messages import Message, Unreadable, decode, salvage
from worker.request.admitting import Admitting
from worker.request.checking import checked, or_rejected, schema_fault
from worker.request.costs import cost_usd
from worker.request.decisions import (
    BUG,
    EXPIRED,
    LOST,
    REFUSED,
    Abandon,
    Decision,
    Disposition,
    Finish,
    Move,
    Park,
    Release,
)
from worker.request.events import RequestEvents
from worker.request.execution import Execution, Interruption
from worker.request.policy import Policy, invalid, kept_out, suspects_beside
from worker.request.ports import (
    AdmissionPort,
    AdmissionQueuePort,
    CheckerPort,
    LedgerPort,
    RelayPort,
    UpstreamPort,
)
from worker.request.quarantine import QUIET_S, Quarantine
from worker.request.results import build_result
from worker.request.stream_watch import StreamWatch
from worker.request.waits import interrupted, not_admitted
from worker.storage.gathering import Pace
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
    pace: Pace = field(default_factory=Pace)
    checker: CheckerPort = field(default_factory=Checker)
    rng: random.Random = field(default_factory=random.Random)
    tokens: TokenEstimator = field(default_factory=TokenEstimator)
    quarantine: Quarantine = field(default_factory=Quarantine)
    admitting: Admitting = field(init=False)

    def __post_init__(self) -> None:
        self.admitting = Admitting(self.queues, self.admission, self.policy, self.tokens)

    async def process(self, execution: Execution) -> Disposition:
        """Takes one delivery to exactly one end: an answer, a later try, another delivery's request, a dead letter.

        Raises ScriptError where the ledger refuses a write; the lease then brings the delivery back.
        """
        try:
            if execution.delivery.lost:
                return await self._refuse(execution, LOST, dead_letter_reason="lost")
            message = self._decoded(execution)
            if isinstance(message, Unreadable):
                return await self._bury(execution, message)
            execution.open(message)
            if not message.identity.owned:
                return await self._refuse(execution, invalid(message, message.violations))
            return await self._claim(execution, self.policy.claim(execution.delivery, message))
        except ScriptError:
            raise
        except Exception as bug:  # noqa: BLE001  # the caller gets an answer, and the events carry the bug
            self.events.request_crashed(execution, bug)
            if execution.claimed:
                return await self._conclude(execution, Finish("failed", BUG))
            return await self._refuse(execution, BUG)

    def _decoded(self, execution: Execution) -> Message | Unreadable:
        """The message, of which nothing is kept as it came. A frame that lasts as long as the request would keep it."""
        policy, raw = self.policy, execution.delivery.message
        message = decode(raw, max_body=policy.max_body, contract=policy.contract)
        execution.let_go()
        return message

    async def _claim(self, execution: Execution, claim: Claim) -> Disposition:
        try:
            begins = await self.admitting.ask_ahead(execution, claim)
            lease = await self.ledger.claim(execution.delivery, claim, begins=begins)
            self.admitting.claimed(execution, lease)
            return await self._run_claimed(execution, lease)
        finally:
            await self.admitting.give_back(execution)

    async def _run_claimed(self, execution: Execution, lease: Lease | Refusal) -> Disposition:
        if isinstance(lease, Refusal):
            refused = REFUSED[lease]
            return refused if isinstance(refused, Disposition) else await self._refuse(execution, refused)
        execution.adopt(lease)
        decision = self.policy.before_call(lease, execution.request)
        return await self._conclude(execution, decision or await self._run_checked(execution))

    async def _run_checked(self, execution: Execution) -> Decision:
        """Runs a request whose schemas are schemas; an answer in hand is never given up for another try."""
        if error := await schema_fault(self.checker, execution.request):
            return Finish("failed", error)
        return or_rejected(execution, await self._run_guarded(execution))

    async def _run_guarded(self, execution: Execution) -> Decision:
        """Runs where no other request of this process keeps it out; a suspect of limit 1 waits until it is alone."""
        lease, limit = execution.lease, suspects_beside(execution.lease)
        if not self.quarantine.enter(execution.delivery.token, limit):
            return kept_out(lease, execution.time_left_s)
        try:
            if limit == 1:
                quiet = self.quarantine.until_alone(max(0.0, min(QUIET_S, execution.time_left_s)))
                if isinstance(left := await execution.unless_interrupted(quiet), Interruption):
                    return interrupted(left)
                if execution.time_left_s <= 0:
                    return Finish("failed", EXPIRED)
            return await self._run(execution)
        finally:
            self.quarantine.leave(execution.delivery.token)

    async def _run(self, execution: Execution) -> Decision:
        """Admits and calls, again and again, until the decision is another one than one more call."""
        while True:
            admitted = await self.admitting.admit(execution)
            if not isinstance(admitted, Reservation):
                return not_admitted(execution, admitted, self.rng)
            call = await self._call(execution, admitted)
            report = execution.report = asyncio.create_task(self._report(execution, admitted, call), name="report")
            await asyncio.sleep(0)  # it leaves first
            outcome = await checked(self.checker, execution, call.outcome) if call else None
            shared = False if isinstance(outcome, Answer) else await report  # nobody refuses what is answered
            if outcome is None:
                return interrupted(execution.interruption) if execution.interruption else Abandon()
            execution.charge(outcome, shared=shared)
            if self.policy.reasks(execution, outcome):
                execution.moving = None
                continue
            decision = self.policy.after_call(execution, outcome, shared=shared, rng=self.rng)
            execution.moving = decision.otherwise if isinstance(decision, Move) else None
            if decision is not None and not isinstance(decision, Move):
                return decision

    async def _call(self, execution: Execution, reservation: Reservation) -> Call | None:
        """One attempt, recorded before its call; None where no call was made."""
        if execution.interruption is not None:
            return None
        execution.read_clock(reservation.granted_at_ms)
        if not await self._begin(execution, reservation):
            return None
        message = execution.request
        watch = StreamWatch.of(execution, reservation, self.relay, self.admission) if message.streams else None
        call = await execution.unless_interrupted(
            self.upstream.create(
                execution.body,
                route=reservation.route,
                model=message.terms.model if message.terms else "",
                stream=message.streams,
                timeout_s=self.policy.timeout_s(message, execution.time_left_s),
                on_event=watch.event if watch else None,
            )
        )
        if watch is not None:
            await watch.ended()
        if isinstance(call, Interruption):
            return execution.end_attempt(None)
        if isinstance(call.outcome, Answer):
            self._learn(execution, call.outcome, call.duration_ms / 1000)
        self.events.call_ended(execution, call)
        return execution.end_attempt(call)

    def _learn(self, execution: Execution, answer: Answer, took_s: float) -> None:
        """Notes the price of an answer, and its time and size for the estimates of later ones."""
        message, usage = execution.request, answer.usage
        self.pace.answered(took_s)
        if message.terms:
            execution.cost_usd = cost_usd(self.policy.prices, message.terms.model, usage)
        if usage:
            self.tokens.learn(execution.text_size, message.max_output_tokens, usage, message.media.tokens)

    async def _begin(self, execution: Execution, reservation: Reservation) -> bool:
        """Records the attempt, unless its claim did; returns whether its call may follow."""
        previous = execution.previous
        attempt = execution.start_attempt(reservation.route)
        if execution.lease.begun and attempt.number == 1:
            return True
        return await self.ledger.begin(execution.lease, attempt, previous) is WriteOutcome.OK

    async def _report(self, execution: Execution, admitted: Reservation, call: Call | None) -> bool:
        """Tells the fleet of the call; returns whether it shares its refusal. An answer outlives its report."""
        try:
            return await self.admission.report(admitted, call)
        except ScriptError as error:
            self.events.script_refused(error)
        except Exception as bug:  # noqa: BLE001  # of the report, not of the answer, which is paid for
            self.events.request_crashed(execution, bug)
        return False

    async def _refuse(self, execution: Execution, error: MappedError, *, dead_letter_reason: str = "") -> Disposition:
        """Answers a delivery that does not own its request id, and keeps a dead letter if there is a reason."""
        message = execution.message or salvage(execution.delivery.message)
        if isinstance(message, Unreadable):
            return await self._bury(execution, message)
        execution.open(message)
        execution.finish(error)
        refusal = build_result(execution, Finish("failed", error))
        address = Claim.bare(message.tenant, message.request_id, message.task_id, result_stream(message.reply_to))
        await self.ledger.answer(execution.delivery, address, refusal, dead_letter_reason=dead_letter_reason)
        return Disposition.FAILED

    async def _bury(self, execution: Execution, message: Unreadable) -> Disposition:
        await self.ledger.bury(execution.delivery, message.reason)
        return Disposition.DEAD_LETTERED

    async def _conclude(self, execution: Execution, decision: Decision) -> Disposition:
        """Writes what was decided, unless another delivery owns the request by now."""
        written = await self._write(execution, decision)
        return decision.disposition if written is WriteOutcome.OK else Disposition.SUPERSEDED

    async def _write(self, execution: Execution, decision: Decision) -> WriteOutcome:
        lease, throttle_ms, attempt = execution.lease, execution.throttle_ms, execution.previous
        match decision:
            case Finish(error=error, dead_letter_reason=dead_letter_reason):
                execution.finish(error)
                result = build_result(execution, decision)
                await execution.flush_deltas()
                written = await self.ledger.complete(
                    lease, result, kept_ms=self.policy.kept_ms, dead_letter_reason=dead_letter_reason
                )
                if execution.report is not None:
                    await execution.report
                return written
            case Park(delay_ms=delay_ms):
                return await self._park(execution, delay_ms=delay_ms)
            case Release() if execution.unsaved_charges:
                return await self._park(execution, delay_ms=0)
            case Release(behind=behind):
                return await self.ledger.release(lease, behind=behind, throttle_ms=throttle_ms, attempt=attempt)
            case Abandon():
                return WriteOutcome.SUPERSEDED

    async def _park(self, execution: Execution, *, delay_ms: int) -> WriteOutcome:
        """Puts the request aside with all that it was charged; what is released keeps no charge of this delivery."""
        spent = execution.spent
        return await self.ledger.park(
            execution.lease,
            delay_ms=delay_ms,
            failures=spent.failures,
            own=spent.own,
            throttle_ms=execution.throttle_ms,
            attempt=execution.previous,
        )
