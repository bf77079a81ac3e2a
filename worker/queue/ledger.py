"""The deliveries and the messages that they hold: typed access to the state machine in `ledger.lua`.

There is one lease for each delivery. A delivery token is fresh for every pop and is checked by every write, so a worker
that lost the lease cannot reschedule, fail or settle a request that another delivery holds by now.
"""

import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final, Literal

from api_contracts.outgoing import MAX_BODY
from worker.queue.attempts import AttemptRecord
from worker.queue.claims import Claim, Delivery, Lease, Pop, Published, Reclaim, Refusal, Standing, WriteOutcome
from worker.queue.commands import (
    ANSWER,
    BEGIN,
    BURY,
    CANCEL,
    CANCELLED,
    CLAIM,
    COMPLETE,
    DELIVERIES,
    FORGET,
    PARK,
    POP,
    PROMOTE,
    RECLAIM,
    RELEASE,
    RETURNS,
    SERVE,
    Refused,
)
from worker.queue.failed_bodies import EXPIRE_FAILED, FAILED_BODIES
from worker.queue.leases import LEASE_MS
from worker.queue.oversize import largest_message
from worker.queue.pop_size import LARGEST_POP
from worker.storage import keys
from worker.storage.commands import Row
from worker.storage.keys import Keys
from worker.storage.scripts import ScriptRunner

KEYS_AT_ONCE: Final = 1000
"""Cancel keys looked up by one call; Redis serves no other client meanwhile."""

_numbers: Final = count(1)
"""Of this process' calls that hand out tokens. They are short because a token crosses the link six times a request."""


@dataclass(frozen=True, slots=True)
class Ledger:
    runner: ScriptRunner
    upstream: str = "default"
    lease_ms: int = LEASE_MS
    largest: int = largest_message(MAX_BODY)
    """Bytes; of a larger message a pop delivers the cut form (`oversize.py`)."""
    failed_kept_ms: int = 0
    """The time for which the message of a retryable failure is kept; 0 = not at all."""
    window_ms: int | None = None
    """The time after its answer for which a request is remembered; None = until a while after its deadline."""
    process: str = field(default_factory=lambda: secrets.token_hex(6))
    """Names this process in every token, so that what falls together is seen to."""

    def fresh_id(self) -> str:
        """The first part of the tokens that one call hands out."""
        return f"{self.process}-{next(_numbers):x}"

    async def pop(
        self,
        quotas: Mapping[str, int],
        limits: Mapping[str, int] | None = None,
        most_bytes: int = LARGEST_POP,
        pop_id: str = "",
    ) -> Pop:
        """Takes and leases, in one step, as many messages as the quotas add up to; each lane's share comes first.

        What some lanes leave of their quota goes to the others in order, up to each lane's limit. The messages have at
        most `most_bytes` together, unless the first alone has more. `tokens_of` the pop id names what it may take.
        """
        total = sum(quotas.values())
        limits = limits or dict.fromkeys(quotas, total)
        lanes = [Row(keys.lane(one), {"lane": one, "quota": quotas[one], "limit": limits[one]}) for one in quotas]
        return await self.runner.call(
            DELIVERIES,
            POP,
            {},
            lanes,
            lease_ms=self.lease_ms,
            pop_id=pop_id or self.fresh_id(),
            total=total,
            bytes=most_bytes,
            largest=self.largest,
        )

    async def claim(self, delivery: Delivery, claim: Claim, *, begins: bool = False) -> Lease | Refusal:
        """Decides by server time whether a delivery may run its request; with `begins` its first attempt begins too."""
        found = await self.runner.call(
            DELIVERIES,
            CLAIM,
            self._keys(delivery, claim),
            lane=delivery.lane,
            token=delivery.token,
            begins=begins,
            **claim.facts,
        )
        if isinstance(found, Refused):
            return Refusal(found.status)
        source: Literal["caller", "worker"] = "caller" if found.enqueued_at_source == "caller" else "worker"
        return Lease(
            delivery=delivery,
            claim=claim,
            standing=Standing(found.status),
            now_ms=found.now_ms,
            enqueued_at_ms=found.enqueued_at_ms,
            enqueued_at_source=source,
            deadline_ms=found.deadline_ms,
            claimed_at_ms=found.claimed_at_ms,
            failures=found.failures,
            own=found.own,
            crashes=found.crashes,
            throttle_ms=found.throttle_ms,
            attempts=found.attempts,
            group=found.group,
            alone=found.alone == 1,
            begun=found.begun == 1,
        )

    async def begin(self, lease: Lease, attempt: AttemptRecord, previous: AttemptRecord | None = None) -> WriteOutcome:
        """Records the attempt before its call, and how the one before it ended; only OK may be followed by the call."""
        return await self.runner.call(
            DELIVERIES,
            BEGIN,
            self._keys(lease.delivery, lease.claim),
            token=lease.delivery.token,
            number=attempt.number,
            attempt=attempt.stored(),
            previous_number=previous.number if previous else None,
            previous=previous.stored() if previous else b"",
        )

    async def complete(
        self, lease: Lease, answer: Published, *, kept_ms: int, dead_letter_reason: str = ""
    ) -> WriteOutcome:
        """Publishes the one result and lets go of everything the delivery held.

        With a `dead_letter_reason` the message becomes a dead letter as well. A stale failure changes nothing; a stale
        answer is paid for and counts while the request has no final state.
        """
        found = self._keys(lease.delivery, lease.claim)
        return await self.runner.call(
            DELIVERIES,
            COMPLETE,
            found if answer.streamed else {name: found[name] for name in found if name != "deltas"},
            lane=lease.delivery.lane,
            token=lease.delivery.token,
            tenant=lease.claim.tenant,
            request_id=lease.claim.request_id,
            outcome=answer.outcome,
            retryable=answer.retryable,
            kept_ms=kept_ms,
            window_ms=self.window_ms,
            dead_reason=dead_letter_reason,
            failed_code=answer.failed_code,
            failed_kept_ms=self.failed_kept_ms,
            **answer.told,
        )

    async def answer(
        self, delivery: Delivery, claim: Claim, answer: Published, *, dead_letter_reason: str = ""
    ) -> WriteOutcome:
        """Publishes a failed result for a delivery that does not own its request id, as `complete` does."""
        return await self.runner.call(
            DELIVERIES,
            ANSWER,
            self._keys(delivery, claim),
            lane=delivery.lane,
            token=delivery.token,
            tenant=claim.tenant,
            request_id=claim.request_id,
            dead_reason=dead_letter_reason,
            **answer.told,
        )

    async def bury(self, delivery: Delivery, reason: str) -> WriteOutcome:
        """Dead-letters a message for which no id can be read."""
        return await self.runner.call(
            DELIVERIES, BURY, self._keys(delivery), lane=delivery.lane, token=delivery.token, reason=reason
        )

    async def park(
        self,
        lease: Lease,
        *,
        delay_ms: int,
        failures: int,
        own: int = 0,
        throttle_ms: int,
        attempt: AttemptRecord | None = None,
    ) -> WriteOutcome:
        """Puts the request aside until `delay_ms` from now; it returns by itself to the front of its lane.

        From now on it counts as having spent `failures` attempts, and `own` refusals that no other request shared.
        """
        return await self.runner.call(
            RETURNS,
            PARK,
            self._keys(lease.delivery, lease.claim),
            token=lease.delivery.token,
            delay_ms=delay_ms,
            failures=failures,
            own=own,
            throttle_ms=throttle_ms,
            **_attempt(attempt),
        )

    async def release(
        self, lease: Lease, *, behind: bool = False, throttle_ms: int, attempt: AttemptRecord | None = None
    ) -> WriteOutcome:
        """Hands the request back to its lane, at once, spending nothing: to the front, or `behind` all that wait."""
        return await self.runner.call(
            RETURNS,
            RELEASE,
            self._keys(lease.delivery, lease.claim),
            token=lease.delivery.token,
            behind=behind,
            throttle_ms=throttle_ms,
            **_attempt(attempt),
        )

    async def promote(self, lanes: Sequence[str], limit: int = 500) -> int:
        """Returns how many parked messages came due and went back to their lanes."""
        return await self.runner.call(RETURNS, PROMOTE, {}, _rows(lanes), limit=limit)

    async def reclaim(self, lanes: Sequence[str], limit: int = 500) -> Reclaim:
        """Ends the deliveries whose workers fell silent; the caller answers those that were `handed` to it."""
        return await self.runner.call(
            RETURNS, RECLAIM, keys.FLEET, _rows(lanes), lease_ms=self.lease_ms, limit=limit, pop_id=self.fresh_id()
        )

    async def cancel(self, tenant: str, request_id: str, *, ttl_ms: int) -> str:
        """Marks a request as cancelled; returns the state it was in, or an empty string where unknown."""
        return await self.runner.call(RETURNS, CANCEL, keys.request(tenant, request_id), ttl_ms=ttl_ms)

    async def revoke(self, task_id: str, *, ttl_ms: int) -> str:
        """The same by Celery task id, whatever the request's own id is."""
        return await self.runner.call(RETURNS, CANCEL, keys.request("", task_id) | keys.task(task_id), ttl_ms=ttl_ms)

    async def cancelled(self, marks: Sequence[str]) -> list[bool]:
        """Whether each of the requests with these cancel keys is cancelled."""
        rows = [Row({"cancel": mark}, {}) for mark in marks]
        chunks = [rows[start : start + KEYS_AT_ONCE] for start in range(0, len(rows), KEYS_AT_ONCE)]
        return [found for chunk in chunks for found in await self.runner.call(RETURNS, CANCELLED, {}, chunk)]

    async def serve(self, lanes: Iterable[str]) -> list[str]:
        """Tells the fleet that these lanes are served; returns all that were in the last month."""
        return await self.runner.call(RETURNS, SERVE, keys.FLEET, [Row({}, {"lane": lane}) for lane in lanes])

    async def forget(self, limit: int = 500) -> int:
        """Drops kept results whose time is over; returns how many."""
        return await self.runner.call(RETURNS, FORGET, keys.FLEET, limit=limit)

    async def expire_failed(self, limit: int = 100) -> int:
        """Drops kept messages of failed requests whose time is over; returns how many."""
        return await self.runner.call(FAILED_BODIES, EXPIRE_FAILED, {}, kept_ms=self.failed_kept_ms, limit=limit)

    def _keys(self, delivery: Delivery, claim: Claim | None = None) -> Keys:
        """Every key that a command on this delivery may name."""
        found = keys.FLEET | keys.lane(delivery.lane) | keys.upstream(self.upstream)
        return found | claim.keys if claim else found


def _rows(lanes: Iterable[str]) -> list[Row]:
    return [Row(keys.lane(lane), {"lane": lane}) for lane in lanes]


def _attempt(attempt: AttemptRecord | None) -> dict[str, Any]:
    return {"number": attempt.number if attempt else None, "attempt": attempt.stored() if attempt else b""}
