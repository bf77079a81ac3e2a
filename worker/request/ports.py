"""The processor's view of the ledger, of admission, of the gateway and of the delta relay."""

from collections.abc import Callable
from typing import Protocol

from worker.admission.grants import Ask, NotAdmitted, Reservation
from worker.checks.findings import Finding
from worker.gateway.upstream import Call
from worker.queue.attempts import AttemptRecord
from worker.queue.claims import Claim, Delivery, Lease, Published, Refusal, WriteOutcome


class LedgerPort(Protocol):
    """Implemented by `worker.queue.ledger.Ledger`."""

    async def claim(self, delivery: Delivery, claim: Claim, *, begins: bool = False) -> Lease | Refusal: ...
    async def begin(
        self, lease: Lease, attempt: AttemptRecord, previous: AttemptRecord | None = None
    ) -> WriteOutcome: ...
    async def complete(
        self, lease: Lease, answer: Published, *, kept_ms: int, dead_letter_reason: str = ""
    ) -> WriteOutcome: ...
    async def answer(
        self, delivery: Delivery, claim: Claim, answer: Published, *, dead_letter_reason: str = ""
    ) -> WriteOutcome: ...
    async def bury(self, delivery: Delivery, reason: str) -> WriteOutcome: ...
    async def park(
        self,
        lease: Lease,
        *,
        delay_ms: int,
        failures: int,
        own: int = 0,
        throttle_ms: int,
        attempt: AttemptRecord | None = None,
    ) -> WriteOutcome: ...
    async def release(
        self, lease: Lease, *, behind: bool = False, throttle_ms: int, attempt: AttemptRecord | None = None
    ) -> WriteOutcome: ...


class CheckerPort(Protocol):
    """Implemented by `worker.checks.checker.Checker`."""

    async def request(self, body: bytes, *, tools: bool) -> Finding | None: ...
    async def answer(self, body: bytes, response: bytes) -> Finding | None: ...
    async def close(self) -> None: ...


class AdmissionQueuePort(Protocol):
    """Implemented by `worker.admission.admission_queue.AdmissionQueues`."""

    def free(self, lane: str) -> bool: ...
    async def admit(self, lane: str, ask: Ask, *, within_s: float) -> Reservation | NotAdmitted: ...


class AdmissionPort(Protocol):
    """Implemented by `worker.admission.client.Admission`."""

    async def report(self, reservation: Reservation, call: Call | None) -> bool: ...
    async def heard(self, reservation: Reservation) -> None: ...


class DeltasPort(Protocol):
    """Implemented by `worker.queue.deltas.Deltas`."""

    def restarted(self, code: str | None) -> None: ...
    def event(self, data: bytes) -> None: ...
    async def flushed(self) -> None: ...


class RelayPort(Protocol):
    """Implemented by `worker.queue.deltas.DeltaRelay`."""

    def open(self, stream: str, attempt: int) -> DeltasPort: ...


class UpstreamPort(Protocol):
    """Implemented by `worker.gateway.gateways.Gateways`."""

    async def create(
        self,
        body: bytes,
        *,
        route: str,
        model: str,
        stream: bool,
        timeout_s: float,
        on_event: Callable[[bytes], None] | None = None,
    ) -> Call: ...
