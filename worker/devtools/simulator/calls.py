"""The calls that the gateway received: one record per call, and totals that outlive the records."""

from collections import Counter, deque
from dataclasses import asdict, dataclass, field
from typing import Any, Final

CLIENT_LEFT: Final = 499
"""The client closed the connection before an answer (nginx's code for it)."""
RESET: Final = 0
"""The gateway reset the connection."""
TOO_MANY_REQUESTS: Final = 429


@dataclass(slots=True, kw_only=True)
class ReceivedCall:
    """One call, from its arrival; never holds a prompt or a key."""

    number: int
    at_s: float
    """Monotonic seconds since the simulator's start."""
    wall: float
    """Unix time."""
    key: str
    """Alias of the authorization key (`key_alias`); empty where none was sent."""
    in_flight: int
    """Admitted calls in progress when it arrived, itself not counted."""
    account: str = ""
    """The one of `SimulatorConfig.accounts` that the key belongs to; empty for the first."""
    body_sha256: str = ""
    prompt: str = ""
    """`prompt_hash` of the prompt."""
    tag: str | None = None
    """The `xyz` of `[[id:xyz]]`."""
    model: str = ""
    """As the caller named it."""
    stream: bool = False
    tokens: int = 0
    """Estimated input plus `max_output_tokens`."""
    fault: str = ""
    refused_by: str = ""
    """The limit that refused it: requests, tokens or concurrency."""
    status: int | None = None
    """None while in progress, 499 if the client left first, 0 if reset."""
    duration_s: float | None = None

    def as_json(self) -> dict[str, Any]:
        # `asdict` copies deeply, which would hold up the gateway for long when the log is long.
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(slots=True, kw_only=True)
class Stats:
    """Totals since the start or the last reset."""

    calls: int = 0
    by_status: dict[str, int] = field(default_factory=dict[str, int])
    """Finished calls; JSON wants the statuses as strings."""
    by_key: dict[str, int] = field(default_factory=dict[str, int])
    by_fault: dict[str, int] = field(default_factory=dict[str, int])
    admitted_tokens: int = 0
    in_flight: int = 0
    peak_in_flight: int = 0
    first_call_s: float | None = None
    last_call_s: float | None = None
    """Arrivals, in monotonic seconds since the simulator's start."""
    throttled_share: float = 0.0
    """429s of all finished calls."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


class CallLog:
    """Bounded in records, exact in totals."""

    def __init__(self, size: int) -> None:
        self._calls: deque[ReceivedCall] = deque(maxlen=size)
        self._number = 0
        self.clear()

    def clear(self) -> None:
        """Forget calls and totals; numbers go on, so that answers' ids stay unique."""
        self._calls.clear()
        self._forgotten = self._number
        self._stats = Stats()
        self._by_status: Counter[int] = Counter()
        self._by_key: Counter[str] = Counter()
        self._by_fault: Counter[str] = Counter()

    def arrived(self, *, at_s: float, wall: float, key: str, in_flight: int) -> ReceivedCall:
        """Record a call; the caller fills the rest in and gives it to `finished`."""
        self._number += 1
        call = ReceivedCall(number=self._number, at_s=at_s, wall=wall, key=key, in_flight=in_flight)
        self._calls.append(call)
        stats = self._stats
        stats.calls += 1
        self._by_key[key] += 1
        stats.last_call_s = at_s
        if stats.first_call_s is None:
            stats.first_call_s = at_s
        return call

    def admitted(self, call: ReceivedCall, in_flight: int) -> None:
        """Count an admission; `in_flight` includes the call."""
        self._stats.admitted_tokens += call.tokens
        self._stats.peak_in_flight = max(self._stats.peak_in_flight, in_flight)

    def finished(self, call: ReceivedCall, *, status: int, at_s: float) -> None:
        """Record how the call ended."""
        call.status = status
        call.duration_s = at_s - call.at_s
        if call.number <= self._forgotten:
            return
        self._by_status[status] += 1
        if call.fault:
            self._by_fault[call.fault] += 1

    def calls(self, tag: str | None = None) -> list[ReceivedCall]:
        """The remembered calls in order of arrival, or those of one tag."""
        return [call for call in self._calls if tag is None or call.tag == tag]

    def stats(self, in_flight: int) -> Stats:
        """The totals, with `in_flight` as they are now."""
        stats = self._stats
        finished = self._by_status.total()
        stats.in_flight = in_flight
        stats.by_status = {str(status): count for status, count in sorted(self._by_status.items())}
        stats.by_key = dict(self._by_key)
        stats.by_fault = dict(self._by_fault)
        stats.throttled_share = self._by_status[TOO_MANY_REQUESTS] / finished if finished else 0.0
        return stats
