"""Asks admission for the next call of a request, for a new one together with its claim.

A claim, a permit and the record of the first attempt would be three round trips. Where a call could start at once, the
question leaves with the claim and before it. The claim finds the permit and records the attempt, so that one round trip
does for all three. Only a new request gains by that, and the fleet must not take its first calls for retries of others:
after a claim of another kind this process asks in order for a while.
"""

import asyncio
import math
import time
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from typing import Any, Final

from worker.admission.grants import Ask, NotAdmitted, Reservation
from worker.admission.tokens import TokenEstimator
from worker.queue.claims import Claim, Lease, Refusal
from worker.queue.messages import Message
from worker.request.checking import is_checked
from worker.request.execution import Execution, Interruption
from worker.request.policy import Policy
from worker.request.ports import AdmissionPort, AdmissionQueuePort
from worker.request.waits import ask_of

IN_ORDER_S: Final = 30.0
"""After a claim of a request that was no new one. Retries and duplicates come in crowds."""


@dataclass(slots=True)
class Admitting:
    """One per process."""

    queues: AdmissionQueuePort
    admission: AdmissionPort
    policy: Policy
    tokens: TokenEstimator
    _in_order_until: float = -math.inf

    async def ask_ahead(self, execution: Execution, claim: Claim) -> bool:
        """Asks before the request is claimed, if its call could follow at once; returns whether it did."""
        times_ms = claim.expected(execution.now_ms)
        left_s = (times_ms[1] - execution.now_ms) / 1000
        if time.monotonic() < self._in_order_until or left_s <= 0 or not _is_plain(execution.request):
            return False
        if not self.queues.free(execution.delivery.lane):
            return False
        waiting = self.queues.admit(execution.delivery.lane, self._ask(execution, times_ms), within_s=left_s)
        execution.ahead = asyncio.create_task(waiting, name="ahead")
        for _ in range(2):  # one turn of the loop for the question to be put, one for the pump that sends it
            await asyncio.sleep(0)
        return True

    def claimed(self, execution: Execution, lease: Lease | Refusal) -> None:
        """Learns from a claim whether it is worth it to ask ahead."""
        if execution.ahead is not None and (isinstance(lease, Refusal) or not lease.new):
            self._in_order_until = time.monotonic() + IN_ORDER_S

    async def admit(self, execution: Execution) -> Reservation | NotAdmitted | Interruption:
        """Waits for the permit of one call: that which `ask_ahead` asked for, or else another."""
        lane, lease = execution.delivery.lane, execution.lease
        ask = self._ask(execution, (lease.enqueued_at_ms, lease.deadline_ms))
        if execution.ahead is not None:
            admitted = await self._wait(execution, _answer_to(execution.ahead, ask))
            if not isinstance(admitted, NotAdmitted):
                return admitted
            # It was asked by this machine's clock, which may be wrong about the time that is left.
            self._in_order_until = time.monotonic() + IN_ORDER_S
        return await self._wait(execution, self.queues.admit(lane, ask, within_s=max(0.0, execution.time_left_s)))

    async def _wait(
        self, execution: Execution, answer: Coroutine[Any, Any, Reservation | NotAdmitted]
    ) -> Reservation | NotAdmitted | Interruption:
        admitted = await execution.unless_interrupted(answer)
        if not isinstance(admitted, Interruption):
            execution.ahead = None
            execution.waited(admitted.waited_ms)
        return admitted

    async def give_back(self, execution: Execution) -> None:
        """Ends a question whose answer nobody waits for, and gives its permit back."""
        ahead, execution.ahead = execution.ahead, None
        if ahead is None:
            return
        ahead.cancel()
        await asyncio.wait([ahead])
        unused = None if ahead.cancelled() or ahead.exception() else ahead.result()
        if isinstance(unused, Reservation):
            await self.admission.report(unused, None)

    def _ask(self, execution: Execution, times_ms: tuple[int, int]) -> Ask:
        message = execution.request
        tokens = self.tokens.estimate(execution.text_size, message.max_output_tokens, message.media.tokens)
        return ask_of(execution, times_ms, tokens=tokens, patience_s=self.policy.patience_s(execution.delivery.lane))


def _is_plain(message: Message) -> bool:
    """Whether nothing stands between the claim of a new request and its call."""
    return message.terms is not None and not (is_checked(message) or message.violations or message.eta)


async def _answer_to(ahead: "asyncio.Task[Reservation | NotAdmitted]", ask: Ask) -> Reservation | NotAdmitted:
    """The answer to a question that was asked before the claim told all of it."""
    admitted = await ahead
    return replace(admitted, asked=ask) if isinstance(admitted, Reservation) else admitted
