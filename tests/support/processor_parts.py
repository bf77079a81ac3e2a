"""A processor whose ports are all played by one `World`, which records each call."""

import asyncio
import base64
import json
import random
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Final

from api_contracts import ErrorCode
from support.heard import Heard
from support.producer import body
from worker.admission.grants import Ask, Gate, NotAdmitted, Reservation
from worker.failures.failure import Failure
from worker.gateway.answers import Answer
from worker.gateway.upstream import Call
from worker.queue.attempts import AttemptOutcome, AttemptRecord
from worker.queue.claims import Claim, Delivery, Lease, Published, Refusal, Standing, WriteOutcome
from worker.request.decisions import Disposition
from worker.request.execution import Execution, Interruption
from worker.request.policy import Policy
from worker.request.processor import Processor

MINUTE_MS: Final = 60_000
ANSWER: Final = Answer(raw=b'{"id":"resp_1"}', status="completed")

Outcome = Answer | Failure | Exception | None
"""Of one call; None never returns."""


def message(envelope: Any = None, headers: Mapping[str, Any] | None = None) -> bytes:
    """As Celery writes it."""
    arguments: list[Any] = [[{"body": body(), **(envelope or {})}], {}, {}]
    return json.dumps(
        {
            "body": base64.b64encode(json.dumps(arguments).encode()).decode(),
            "content-type": "application/json",
            "headers": {"task": "responses.create", "id": "task-1", **(headers or {})},
            "properties": {"correlation_id": "task-1", "body_encoding": "base64"},
        }
    ).encode()


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
    on_begin: Callable[[], None] = lambda: None
    on_flush: Callable[[], None] = lambda: None
    on_output: Callable[[], None] = lambda: None
    on_report: Callable[[], None] = lambda: None
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

    async def claim(self, delivery: Delivery, claim: Claim) -> Lease | Refusal:
        self.tell("claim", claim=claim)
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


POLICY: Final = Policy(
    max_body=100_000,
    max_attempts=3,
    timeout=timedelta(seconds=30),
    default_deadline={"*": timedelta(hours=1)},
    result_ttl=timedelta(hours=1),
    patience={"interactive": timedelta(seconds=30), "batch": None},
)


def processor(world: World, policy: Policy = POLICY) -> Processor:
    return Processor(
        ledger=world,
        queues=world,
        admission=WorldsAdmission(world),
        upstream=world,
        relay=world,
        policy=policy,
        events=world.events,
        rng=random.Random(1),
    )


def execution_of(raw: bytes | None = None, *, name: str = "t", lane: str = "interactive") -> Execution:
    return Execution(Delivery(name, lane, message() if raw is None else raw))


async def process(world: World, raw: bytes | None = None, *, lane: str = "interactive") -> Disposition:
    return await processor(world).process(execution_of(raw, lane=lane))


async def process_with(
    policy: Policy, raw: bytes | None = None, *, lane: str = "interactive", lease: Any = None
) -> World:
    """A world in which one delivery was processed by `policy`."""
    world = World(lease=lease)
    await processor(world, policy).process(execution_of(raw, lane=lane))
    return world


async def interrupted(world: World, why: Interruption, at: asyncio.Event, raw: bytes | None = None) -> Disposition:
    """Stopped as soon as it is there."""
    execution = execution_of(raw)
    task = asyncio.create_task(processor(world).process(execution))
    await at.wait()
    await asyncio.sleep(0)
    execution.interrupt(why)
    return await asyncio.wait_for(task, 5)


def failing(code: ErrorCode, **changes: Any) -> Failure:
    return replace(Failure.of(code), **changes)


def reported(world: World) -> list[Any]:
    """The call that admission was told of, after each grant; None where none was made."""
    return [told["call"] for told in world.heard("report")]


def attempts(world: World) -> list[tuple[str, str | None, bool]]:
    """Outcome, code and maybe_billed of each attempt of the published result."""
    return [(each["outcome"], each["code"], each["maybe_billed"]) for each in world.result["attempts"]]


def past_attempt(number: int, outcome: AttemptOutcome = "failed", code: str | None = None) -> bytes:
    return AttemptRecord(number=number, outcome=outcome, duration_ms=3, code=code).encode()
