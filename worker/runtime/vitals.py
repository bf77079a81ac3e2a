"""Is this process alive, is it ready: what the probes answer, and the one time a standstill is told."""

import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from worker.failures.classes import State
from worker.runtime.probes import ProbeAnswer
from worker.runtime.service import Service
from worker.telemetry import Event
from worker.telemetry.redaction import place

LOOP_STALLED_S: Final = 12.0
"""Silence of the event loop, which beats every second; far above any step of ours, below what /livez is given."""
CONSUMER_STALLED_S: Final = 13.0
"""Of Celery's consumer: longer than its socket timeout, of 3 s, which a dead connection may cost it several times."""
_STACK: Final = 12


class Pulse:
    """The heartbeat of something that may be at rest: silence counts only while it should beat."""

    def __init__(self) -> None:
        self._beat: float | None = None

    def beat(self) -> None:
        self._beat = time.monotonic()

    def rest(self) -> None:
        """It is not expected to beat for now."""
        self._beat = None

    @property
    def silence_s(self) -> float:
        beat = self._beat
        return 0.0 if beat is None else time.monotonic() - beat


@dataclass(slots=True, kw_only=True)
class Vitals:
    """Asked from the probes' threads; `threads` gives the ident of the thread of each heart."""

    service: Callable[[], Service | None]
    threads: Callable[[], Mapping[State, int | None]]
    consumer: Pulse = field(default_factory=Pulse)
    """Celery's; it rests while it has no connection, and from SIGTERM on."""
    _told: set[State] = field(default_factory=set[State])

    def live(self) -> ProbeAnswer:
        """Not ok where only a restart helps."""
        service = self.service()
        loop_s = service.keeper.silence_s if service else 0.0
        # Without Redis the consumer may hang in its socket for a while, and on its way out it beats no more.
        expected = service is not None and service.ready and service.watch.redis_up
        consumer_s = self.consumer.silence_s if expected else 0.0
        stalled = self._check(State.LOOP_STALLED, "loop.stalled", loop_s, LOOP_STALLED_S)
        stalled |= self._check(State.CONSUMER_STALLED, "consumer.stalled", consumer_s, CONSUMER_STALLED_S)
        return ProbeAnswer(not stalled, {"loop_silent_s": round(loop_s, 1), "consumer_silent_s": round(consumer_s, 1)})

    def ready(self) -> ProbeAnswer:
        """Not ok while this process takes no work for a reason of its own."""
        service = self.service()
        if service is None or not service.started:
            return ProbeAnswer(False, {"why": "starting"})
        if not service.ready:
            return ProbeAnswer(False, {"why": "draining"})
        if not service.watch.redis_up:
            return ProbeAnswer(False, {"why": "redis_lost"})
        return ProbeAnswer(True, {})

    def _check(self, state: State, event: Event, silence_s: float, limit_s: float) -> bool:
        stalled, service = silence_s > limit_s, self.service()
        if service is not None and stalled != (state in self._told):
            if stalled:
                self._told.add(state)
                service.watch.stalled(state, event, silence_s, stack_of(self.threads()[state]))
            else:
                self._told.discard(state)
                service.watch.incidents.ended(state)
        return stalled


def stack_of(thread: int | None) -> list[str]:
    """Where a thread stands now, innermost last; places only."""
    frames: Mapping[int, Any] = sys._current_frames()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # documented, for this
    frame = frames.get(thread or 0)
    return [place(at) for at in traceback.extract_stack(frame)[-_STACK:]] if frame else []
