"""Who holds which message: typed access to the state machine in `ledger.lua`, `deliveries.lua` and `returns.lua`.

One lease per delivery. A delivery token is fresh for every pop and is checked by every write, so whoever lost
the lease cannot reschedule, fail or settle a request that now belongs to somebody else.
"""

import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import redis

from worker.queue.attempts import AttemptRecord
from worker.queue.claims import (
    Claim,
    Delivery,
    Lease,
    Published,
    Reclaimed,
    Refusal,
    Standing,
    WriteOutcome,
)
from worker.storage.scripts import Script, ScriptRunner

LEASE_MS: Final = 15_000
"""How long a silent worker keeps what it took; three renewals fit in."""

KEYS_AT_ONCE: Final = 1000
"""Lua passes at most 8000 arguments to a function, and Redis serves nobody else meanwhile."""

# Two scripts, because reading one costs Redis more than most commands in it. What may write when Redis is full must:
# else it could never drain, for answers must land and leases must move.
DELIVERIES: Final = Script.load(
    "queue/lua/ledger.lua", "queue/lua/deliveries.lua", even_when_full=frozenset({"complete", "answer", "bury"})
)
RETURNS: Final = Script.load(
    "queue/lua/ledger.lua",
    "queue/lua/returns.lua",
    even_when_full=frozenset({"park", "release", "renew", "promote", "reclaim", "cancel", "cancelled", "forget"}),
)

_NO_HISTORY: Final = ("", "")


@dataclass(frozen=True, slots=True)
class Ledger:
    runner: ScriptRunner
    upstream: str = "default"
    lease_ms: int = LEASE_MS

    async def pop(self, quotas: Mapping[str, int], limits: Mapping[str, int] | None = None) -> list[Delivery]:
        """Takes and leases, in one step, as many messages as the quotas add up to; each lane's share comes first.

        What some lanes leave of their quota goes to the others in order, up to each lane's limit.
        """
        total = sum(quotas.values())
        limits = limits or dict.fromkeys(quotas, total)
        flat = [part for lane, quota in quotas.items() for part in (lane, quota, limits[lane])]
        reply = await self.runner.call(DELIVERIES, "pop", self.lease_ms, secrets.token_hex(8), total, *flat)
        rows = iter(reply[1:])
        return [Delivery(token.decode(), lane.decode(), raw) for token, lane, raw in zip(rows, rows, rows, strict=True)]

    async def claim(self, delivery: Delivery, claim: Claim) -> Lease | Refusal:
        """Decides, by server time, whether this delivery may run its request."""
        reply = await self.runner.call(
            DELIVERIES,
            "claim",
            delivery.lane,
            delivery.token,
            claim.tenant,
            claim.request_id,
            claim.task_id,
            claim.fingerprint,
            "" if claim.enqueued_at_ms is None else claim.enqueued_at_ms,
            "" if claim.deadline_ms is None else claim.deadline_ms,
            claim.default_deadline_ms,
            claim.longest_deadline_ms,
            claim.stream,
        )
        status = reply[0].decode()
        if status in Refusal.__members__:
            return Refusal(status)
        source: Literal["caller", "worker"] = "caller" if reply[3] == b"caller" else "worker"
        return Lease(
            delivery=delivery,
            claim=claim,
            standing=Standing(status),
            now_ms=int(reply[1]),
            enqueued_at_ms=int(reply[2]),
            enqueued_at_source=source,
            deadline_ms=int(reply[4]),
            claimed_at_ms=int(reply[5]),
            failures=int(reply[6]),
            crashes=int(reply[7]),
            throttle_ms=int(reply[8]),
            attempts=tuple(reply[9:]),
        )

    async def begin(self, lease: Lease, history: AttemptRecord, previous: AttemptRecord | None = None) -> WriteOutcome:
        """Records the attempt before its call, and how the one before it ended; only OK may be followed by the call."""
        past = previous.arguments() if previous else _NO_HISTORY
        return await self._write(DELIVERIES, "begin", lease, lease.claim.key, *history.arguments(), *past)

    async def complete(self, lease: Lease, answer: Published, *, kept_ms: int, dead: str = "") -> WriteOutcome:
        """Publishes the one result and lets go of everything the delivery held.

        `dead` is the reason for a dead letter beside the result. A stale failure changes nothing; a stale answer
        is paid for and counts while the request has no final state.
        """
        claim = lease.claim
        return await self._write(
            DELIVERIES,
            "complete",
            lease,
            claim.key,
            claim.tenant,
            claim.request_id,
            answer.outcome,
            int(answer.retryable),
            answer.result,
            claim.stream,
            kept_ms,
            self.upstream,
            dead,
            int(answer.streamed),
        )

    async def answer(self, delivery: Delivery, claim: Claim, result: bytes) -> WriteOutcome:
        """Publishes a failed result for a delivery that does not own its request id."""
        reply = await self.runner.call(
            DELIVERIES, "answer", delivery.lane, delivery.token, claim.tenant, claim.request_id, result, claim.stream
        )
        return WriteOutcome(reply.decode())

    async def bury(self, delivery: Delivery, reason: str) -> WriteOutcome:
        """Dead-letters a message for which no id can be read."""
        return WriteOutcome(
            (await self.runner.call(DELIVERIES, "bury", delivery.lane, delivery.token, reason)).decode()
        )

    async def park(
        self, lease: Lease, *, delay_ms: int, failures: int, throttle_ms: int, history: AttemptRecord | None = None
    ) -> WriteOutcome:
        """Puts the request aside until `delay_ms` from now; it returns by itself to the front of its lane."""
        past = history.arguments() if history else _NO_HISTORY
        return await self._write(
            RETURNS, "park", lease, lease.claim.key, delay_ms, failures, throttle_ms, self.upstream, *past
        )

    async def release(self, lease: Lease, *, throttle_ms: int, history: AttemptRecord | None = None) -> WriteOutcome:
        """Hands the request back to the front of its lane, at once, spending nothing."""
        past = history.arguments() if history else _NO_HISTORY
        return await self._write(RETURNS, "release", lease, lease.claim.key, throttle_ms, self.upstream, *past)

    async def promote(self, lanes: Sequence[str], limit: int = 500) -> int:
        """Returns how many parked messages came due and went back to their lanes."""
        return int(await self.runner.call(RETURNS, "promote", limit, *lanes))

    async def reclaim(self, lanes: Sequence[str], limit: int = 500) -> list[Reclaimed]:
        """Returns to their lanes the deliveries whose workers fell silent."""
        rows = iter(await self.runner.call(RETURNS, "reclaim", self.lease_ms, limit, *lanes))
        return [
            Reclaimed(
                lane=lane.decode(),
                token=token.decode(),
                request_key=key.decode(),
                attempt=int(calling),
                crashes=int(n),
            )
            for lane, token, key, calling, n in zip(rows, rows, rows, rows, rows, strict=True)
        ]

    async def cancel(self, tenant: str, request_id: str, *, ttl_ms: int) -> str:
        """Marks a request as cancelled; returns the state it was in, or an empty string where unknown."""
        return (await self.runner.call(RETURNS, "cancel", tenant, request_id, ttl_ms)).decode()

    async def cancelled(self, keys: Sequence[str]) -> list[bool]:
        """Which of the requests with these cancel keys are cancelled."""
        chunks = [keys[start : start + KEYS_AT_ONCE] for start in range(0, len(keys), KEYS_AT_ONCE)]
        return [bool(found) for chunk in chunks for found in await self.runner.call(RETURNS, "cancelled", *chunk)]

    async def forget(self, limit: int = 500) -> int:
        """Drops kept results whose time is over; returns how many."""
        return int(await self.runner.call(RETURNS, "forget", limit))

    async def _write(self, script: Script, command: str, lease: Lease, *arguments: Any) -> WriteOutcome:
        reply = await self.runner.call(script, command, lease.delivery.lane, lease.delivery.token, *arguments)
        return WriteOutcome(reply.decode())


def renew(client: redis.Redis, held: Iterable[tuple[str, str]], *, upstream: str, lease_ms: int = LEASE_MS) -> set[str]:
    """Extends the leases and permits of `held` (lane, token) pairs; returns the tokens no longer in flight.

    Blocking, because renewal runs on a thread of its own: a busy event loop must not cost leases.
    """
    pairs = list(held)
    missing: set[str] = set()
    for start in range(0, len(pairs), KEYS_AT_ONCE):
        flat = [part for pair in pairs[start : start + KEYS_AT_ONCE] for part in pair]
        gone = client.eval(RETURNS.text_for("renew"), 0, "renew", lease_ms, upstream, *flat)
        missing |= {token.decode() for token in gone}  # pyright: ignore[reportGeneralTypeIssues]  # redis-py types both colours as one
    return missing
