"""The ports of the processor, watched: what passes through them is counted, and the story knows nothing of it."""

from collections.abc import Callable

from worker.admission import Admission, Gate, Grant, Reservation
from worker.observer import Observer
from worker.upstream import Call, Upstream
from worker.watch import Watch


class WatchedUpstream(Upstream):
    """Tells of every call when it ends; of one that is interrupted, nothing is known."""

    observer: Observer

    async def create(
        self, body: bytes, *, stream: bool, timeout_s: float, on_event: Callable[[bytes], None] | None = None
    ) -> Call:
        call = await super().create(body, stream=stream, timeout_s=timeout_s, on_event=on_event)
        self.observer.call_ended(call)
        return call


class WatchedAdmission(Admission):
    """Tells what the fleet's budget said, and of the refusal that confirms that the upstream is out of order."""

    watch: Watch

    async def grant(self, lane: str, weight: int, asked: list[tuple[str, int]]) -> Grant:
        grant = await super().grant(lane, weight, asked)
        self.watch.granted(len(asked), sum(tokens for _, tokens in asked[: grant.granted]), grant)
        return grant

    async def refused(self, reservation: Reservation, gate: Gate, code: str) -> None:
        """As its base; the script says 1 to one process of the fleet, once per outage."""
        confirms = await self._call("refused", gate, code, reservation.granted_at_ms, self.probe_ms)
        if int(confirms):
            self.watch.confirmed(gate, code)
