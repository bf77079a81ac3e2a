"""The processor's view of the ledger, of admission, of the gateway and of the delta relay."""

from collections.abc import Callable
from typing import Protocol

from worker.admission.grants import Ask, NotAdmitted, Reservation
from worker.gateway.upstream import Call
from worker.queue.attempts import AttemptRecord
from worker.queue.claims import Claim, Delivery, Lease, Published, Refusal, WriteOutcome


class LedgerPort(Protocol):
    async def claim(self, delivery: Delivery, claim: Claim) -> Lease | Refusal: ...
    async def begin(
        self, lease: Lease, history: AttemptRecord, previous: AttemptRecord | None = None
    ) -> WriteOutcome: ...
    async def complete(self, lease: Lease, answer: Published, *, kept_ms: int, dead: str = "") -> WriteOutcome: ...
    async def answer(self, delivery: Delivery, claim: Claim, result: bytes) -> WriteOutcome: ...
    async def bury(self, delivery: Delivery, reason: str) -> WriteOutcome: ...
    async def park(
        self, lease: Lease, *, delay_ms: int, failures: int, throttle_ms: int, history: AttemptRecord | None = None
    ) -> WriteOutcome: ...
    async def release(
        self, lease: Lease, *, throttle_ms: int, history: AttemptRecord | None = None
    ) -> WriteOutcome: ...


class AdmissionQueuePort(Protocol):
    async def admit(self, lane: str, ask: Ask, *, within_s: float) -> Reservation | NotAdmitted: ...


class AdmissionPort(Protocol):
    async def report(self, reservation: Reservation, call: Call | None) -> bool: ...


class DeltasPort(Protocol):
    def restarted(self, code: str | None) -> None: ...
    def event(self, data: bytes) -> None: ...


class RelayPort(Protocol):
    def open(self, stream: str, attempt: int) -> DeltasPort: ...
    async def flushed(self) -> None: ...


class UpstreamPort(Protocol):
    @property
    def name(self) -> str: ...
    async def create(
        self, body: bytes, *, stream: bool, timeout_s: float, on_event: Callable[[bytes], None] | None = None
    ) -> Call: ...
