"""The gateway, watched: every call is told of when it ends, and the story knows nothing of it."""

from collections.abc import Callable

from worker.gateway.upstream import Call, Upstream
from worker.telemetry.request_observer import RequestObserver


class ObservedUpstream(Upstream):
    """Tells of every call when it ends; of one that is interrupted, nothing is known."""

    observer: RequestObserver

    async def create(
        self, body: bytes, *, stream: bool, timeout_s: float, on_event: Callable[[bytes], None] | None = None
    ) -> Call:
        call = await super().create(body, stream=stream, timeout_s=timeout_s, on_event=on_event)
        self.observer.call_ended(call)
        return call
