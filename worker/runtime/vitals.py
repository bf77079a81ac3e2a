"""Decides the answers of the probes, and reports a standstill once."""

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
"""The event loop beats every second; this is far longer than any of its steps, and shorter than /livez allows."""
CONSUMER_STALLED_S: Final = 13.0
"""Celery's consumer may wait for a dead connection several times, 3 s each; this is longer."""
_STACK: Final = 12


class Pulse:
    """A heartbeat that may rest: silence counts only after a beat."""

    def __init__(self) -> None:
        self._beat: float | None = None

    def beat(self) -> None:
        self._beat = time.monotonic()

    def rest(self) -> None:
        """No beat is expected until the next one."""
        self._beat = None

    @property
    def silence_s(self) -> float:
        beat = self._beat
        return 0.0 if beat is None else time.monotonic() - beat


@dataclass(slots=True, kw_only=True)
class Vitals:
    """The probes' threads ask it; `threads` gives the ident of the thread of each state."""

    service: Callable[[], Service | None]
    threads: Callable[[], Mapping[State, int | None]]
    consumer: Pulse = field(default_factory=Pulse)
    """Celery's consumer; it rests while it has no connection, and from SIGTERM on."""
    _told: set[State] = field(default_factory=set[State])

    def live(self) -> ProbeAnswer:
        """Not ok if only a restart helps."""
        service = self.service()
        loop_s = service.renewer.silence_s if service else 0.0
        # Without Redis the consumer may wait in its socket; while it leaves, it does not beat.
        expected = service is not None and service.ready and service.observer.redis_up
        consumer_s = self.consumer.silence_s if expected else 0.0
        stalled = self._check(State.LOOP_STALLED, "loop.stalled", loop_s, LOOP_STALLED_S)
        stalled |= self._check(State.CONSUMER_STALLED, "consumer.stalled", consumer_s, CONSUMER_STALLED_S)
        return ProbeAnswer(not stalled, {"loop_silent_s": round(loop_s, 1), "consumer_silent_s": round(consumer_s, 1)})

    def ready(self) -> ProbeAnswer:
        """Not ok while this process takes no work, for a reason of its own."""
        service = self.service()
        if service is None or not service.started:
            return ProbeAnswer(False, {"why": "starting"})
        if not service.ready:
            return ProbeAnswer(False, {"why": "draining"})
        if not service.observer.redis_up:
            return ProbeAnswer(False, {"why": "redis_lost"})
        return ProbeAnswer(True, {})

    def _check(self, state: State, event: Event, silence_s: float, limit_s: float) -> bool:
        stalled, service = silence_s > limit_s, self.service()
        if service is not None and stalled != (state in self._told):
            if stalled:
                self._told.add(state)
                service.observer.stalled(state, event, silence_s, stack_of(self.threads()[state]))
            else:
                self._told.discard(state)
                service.observer.incidents.ended(state)
        return stalled


def stack_of(thread: int | None) -> list[str]:
    """The frames of a thread, innermost last; places only, no values."""
    frames: Mapping[int, Any] = sys._current_frames()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # documented, for this
    frame = frames.get(thread or 0)
    return [place(at) for at in traceback.extract_stack(frame)[-_STACK:]] if frame else []
