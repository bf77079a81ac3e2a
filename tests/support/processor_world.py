"""A world that plays every port of a processor, and records each call."""

import asyncio
import json
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final

from support.heard import Heard
from worker.admission.grants import Ask, Gate, NotAdmitted, Reservation
from worker.failures.failure import Failure
from worker.gateway.answers import Answer
from worker.gateway.upstream import Call
from worker.queue.attempts import AttemptRecord
from worker.queue.claims import Claim, Delivery, Lease, Published, Refusal, Standing, WriteOutcome

MINUTE_MS: Final = 60_000
ANSWER: Final = Answer(raw=b'{"id":"resp_1"}', status="completed")
Outcome = Answer | Failure | Exception | None
"""Of one call; None never returns."""


@dataclass
class World:
    """Every port at once. `told` is what the ledger, admission and relay heard, in order."""

    lease: Any = None
    """Changes of the lease that a claim gets, or a Refusal."""
    verdict: WriteOutcome = WriteOutcome.OK
    outcomes: deque[Outcome] = field(default_factory=deque[Outcome])
    grants: deque[NotAdmitted | Gate | None] = field(default_factory=deque[NotAdmitted | Gate | None])
    """Admission's answers: a NotAdmitted, a gate to probe, or None for never; when used up it admits."""
    told: list[tuple[str, dict[str, Any]]] = field(default_factory=list[tuple[str, dict[str, Any]]])
    calls: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    admitting: asyncio.Event = field(default_factory=asyncio.Event)
    calling: asyncio.Event = field(default_factory=asyncio.Event)
    on_admit: Callable[[], None] = lambda: None
    on_claim: Callable[[], object] = lambda: None
    on_begin: Callable[[], None] = lambda: None
    on_flush: Callable[[], None] = lambda: None
    on_output: Callable[[], None] = lambda: None
    on_report: Callable[[], None] = lambda: None
    ahead: bool = False
    """Whether admission may be asked ahead of the claim."""
    shared: bool = True
    """Whether a refusal is believed of the whole fleet."""
    streamed: tuple[bytes, ...] = (b"{}",)
    """The events of each streamed call."""
    via: deque[str] = field(default_factory=deque[str])
    """The routes that are granted, in order; then `default`."""
    routes: list[str] = field(default_factory=list[str])
    """The route of each call."""
    running: int = 0
    most_running: int = 0
    events: Heard = field(default_factory=Heard)

    name = "default"

    def tell(self, what: str, **facts: Any) -> None:
        self.told.append((what, facts))

    def heard(self, what: str) -> list[dict[str, Any]]:
        return [facts for name, facts in self.told if name == what]

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.told]

    @property
    def result(self) -> dict[str, Any]:
        """The one published result."""
        (completed,) = self.heard("complete")
        return json.loads(completed["answer"].result)

    # The ledger.

    async def claim(self, delivery: Delivery, claim: Claim, *, begins: bool = False) -> Lease | Refusal:
        await asyncio.sleep(0)  # as a reply would; what was asked before is answered
        self.tell("claim", claim=claim, begins=begins)
        self.on_claim()
        if isinstance(self.lease, Refusal):
            return self.lease
        now_ms = round(time.time() * 1000)
        plain = Lease(
            delivery=delivery,
            claim=claim,
            standing=Standing.RUNNABLE,
            now_ms=now_ms,
            enqueued_at_ms=now_ms,
            enqueued_at_source="worker",
            deadline_ms=now_ms + MINUTE_MS,
            claimed_at_ms=now_ms,
            failures=0,
            own=0,
            crashes=0,
            throttle_ms=0,
            attempts=(),
        )
        changes: dict[str, Any] = dict(self.lease or {})
        age_ms, left_ms = changes.pop("age_ms", 0), changes.pop("left_ms", MINUTE_MS)
        return replace(plain, **{"enqueued_at_ms": now_ms - age_ms, "deadline_ms": now_ms + left_ms, **changes})

    async def begin(self, lease: Lease, attempt: AttemptRecord, previous: AttemptRecord | None = None) -> WriteOutcome:
        self.tell("begin", token=lease.delivery.token, attempt=attempt, previous=previous)
        self.on_begin()
        return self.verdict

    async def complete(
        self, lease: Lease, answer: Published, *, kept_ms: int, dead_letter_reason: str = ""
    ) -> WriteOutcome:
        self.tell(
            "complete",
            token=lease.delivery.token,
            answer=answer,
            kept_ms=kept_ms,
            dead_letter_reason=dead_letter_reason,
        )
        return self.verdict

    async def answer(
        self, delivery: Delivery, claim: Claim, answer: Published, *, dead_letter_reason: str = ""
    ) -> WriteOutcome:
        self.tell(
            "answer",
            token=delivery.token,
            claim=claim,
            result=json.loads(answer.result),
            dead_letter_reason=dead_letter_reason,
        )
        return self.verdict

    async def bury(self, delivery: Delivery, reason: str) -> WriteOutcome:
        self.tell("bury", token=delivery.token, reason=reason)
        return self.verdict

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
        self.tell("park", token=lease.delivery.token, delay_ms=delay_ms, failures=failures, own=own, attempt=attempt)
        self.tell("throttle", ms=throttle_ms)
        return self.verdict

    async def release(
        self, lease: Lease, *, behind: bool = False, throttle_ms: int, attempt: AttemptRecord | None = None
    ) -> WriteOutcome:
        self.tell("release", token=lease.delivery.token, behind=behind, throttle_ms=throttle_ms, attempt=attempt)
        return self.verdict

    # Admission.

    def free(self, lane: str) -> bool:
        return self.ahead and bool(lane)

    async def admit(self, lane: str, ask: Ask, *, within_s: float) -> Reservation | NotAdmitted:
        self.tell("admit", lane=lane, ask=ask, within_s=within_s)
        self.admitting.set()
        grant = self.grants.popleft() if self.grants else ""
        if grant is None:
            await asyncio.Event().wait()
        if isinstance(grant, NotAdmitted):
            return grant
        self.on_admit()
        route = self.via.popleft() if self.via else "default"
        return Reservation(ask.token, ask.tokens, 7, 1, grant or "", asked=ask, route=route)

    async def report(self, reservation: Reservation, call: Call | None) -> bool:
        self.tell("report", reservation=reservation, call=call)
        self.on_report()
        return self.shared

    async def output_came(self, reservation: Reservation) -> None:
        self.tell("output", reservation=reservation)
        self.on_output()

    # The upstream.

    async def create(
        self,
        body: bytes,
        *,
        route: str,
        model: str,
        stream: bool,
        timeout_s: float,
        on_event: Callable[[bytes], None] | None = None,
    ) -> Call:
        assert model
        self.routes.append(route)
        self.calls.append({"body": body, "stream": stream, "timeout_s": timeout_s})
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        self.calling.set()
        try:
            outcome = self.outcomes.popleft() if self.outcomes else ANSWER
            if outcome is None:
                await asyncio.Event().wait()
            await asyncio.sleep(0)
            if on_event:
                for event in self.streamed:
                    on_event(event)
        finally:
            self.running -= 1
        if isinstance(outcome, Exception):
            raise outcome
        assert outcome is not None
        status = 200 if isinstance(outcome, Answer) else outcome.http_status
        return Call(outcome=outcome, http_status=status, upstream_request_id="up-1", duration_ms=5, headers={"a": "b"})

    # The relay.

    def open(self, stream: str, attempt: int) -> "World":
        self.tell("open", stream=stream, attempt=attempt)
        return self

    def restarted(self, code: str | None) -> None:
        self.tell("restarted", code=code)

    def event(self, data: bytes) -> None:
        self.tell("event", data=data)

    async def flushed(self) -> None:
        self.tell("flushed")
        self.on_flush()


@dataclass(frozen=True)
class WorldsAdmission:
    """A world's admission, whose `heard` is another thing than what the world was told."""

    world: World

    async def report(self, reservation: Reservation, call: Call | None) -> bool:
        return await self.world.report(reservation, call)

    async def heard(self, reservation: Reservation) -> None:
        await self.world.output_came(reservation)
