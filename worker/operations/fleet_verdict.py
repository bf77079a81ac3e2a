"""Decides of each lane whether it moves, and if not, why. Pure; `troubles.py` sums the fleet up.

The causes are looked at in the order in which they stop a request on its way: no worker, an operator's pause, a shut
gate, workers that leave, results that nobody reads, a pause of the gateway, full processes, the budget.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from worker.operations.overview import Lane, Upstream
from worker.operations.registry import Worker
from worker.telemetry.runbook import WAITS

LaneState = Literal["idle", "moving", "calling", "scheduled", "standing"]
"""`calling`: calls are under way and none has ended lately. `scheduled`: all it has waits for its time."""

PASSABLE: Final = ("open", "throttled")
"""States of an upstream that is called, now or soon."""
LATELY_MS: Final = 30_000
"""A lane moves while its last answer is no older than this."""
YOUNG_MS: Final = 10_000
"""A request that waits for less is no reason to say that its lane stands still."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """The reason why a lane stands still: in words, and the runbook's entry."""

    why: str
    entry: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneView:
    """One lane of a fleet. Times in ms."""

    name: str
    messages: Lane
    workers: int
    """Living workers of this fleet that serve it."""
    served_elsewhere: bool
    """Whether workers of another fleet serve it."""
    waiting: int
    """Requests that workers hold and may not call for yet."""
    calling: int
    per_second: float
    """Answers, over the last ten seconds."""
    still_ms: int | None
    """Since its last answer; None where there was none in a month."""
    state: LaneState
    cause: Cause | None
    """Of a lane that stands still."""

    @property
    def is_gone(self) -> bool:
        """Whether it is empty and nobody serves it."""
        return not (self.messages.left or self.workers or self.served_elsewhere)


def judge(
    lanes: Mapping[str, Lane],
    upstream: Upstream,
    workers: Sequence[Worker],
    still: Mapping[str, int],
    served: Iterable[str],
) -> Mapping[str, LaneView]:
    """Every lane. `upstream`: the decisive one. `still`: ms since its last answer. `served`: lanes of any fleet."""
    served = set(served)
    return {
        name: _lane(name, messages, upstream, workers, still_ms=still.get(name), served=name in served)
        for name, messages in lanes.items()
    }


def _lane(
    name: str,
    messages: Lane,
    upstream: Upstream,
    workers: Sequence[Worker],
    *,
    still_ms: int | None,
    served: bool,
) -> LaneView:
    serving = [worker for worker in workers if worker.alive and name in worker.lanes]
    holds = [worker.load.holds[name] for worker in serving if name in worker.load.holds]
    per_second = round(sum(worker.per_second.get(name, 0.0) for worker in serving), 2)
    calling, elsewhere = sum(each.calling for each in holds), not serving and served
    cause = None if elsewhere else _cause(name, messages, upstream, workers, serving)
    state = _state(
        messages, still_ms, calling, per_second, certain=cause is not None and cause.entry != "nothing_moving"
    )
    return LaneView(
        name=name,
        messages=messages,
        workers=len(serving),
        served_elsewhere=elsewhere,
        waiting=sum(each.waiting for each in holds),
        calling=calling,
        per_second=per_second,
        still_ms=still_ms,
        state=state,
        cause=cause if state == "standing" else None,
    )


def _state(messages: Lane, still_ms: int | None, calling: int, per_second: float, *, certain: bool) -> LaneState:
    if not messages.left:
        return "idle"
    if per_second or (still_ms is not None and still_ms < LATELY_MS and not certain):
        return "moving"
    if calling:
        return "calling"
    if not sum(messages.ready.values()) and not messages.in_flight:
        return "scheduled"
    young = messages.oldest_age_ms is not None and messages.oldest_age_ms < YOUNG_MS
    return "moving" if young and not certain else "standing"


def _cause(
    lane: str, messages: Lane, upstream: Upstream, workers: Sequence[Worker], serving: Sequence[Worker]
) -> Cause:
    """The first obstacle on a request's way; `nothing_moving` where there is none to be seen."""
    if not serving:
        return _unserved(lane, workers)
    return (
        _of_operators_and_gates(upstream)
        or _of_workers(serving)
        or _of_the_budget(messages, upstream, serving)
        or Cause(why="its workers take nothing, and nothing says why", entry="nothing_moving")
    )


def _of_operators_and_gates(upstream: Upstream) -> Cause | None:
    if upstream.state == "paused":
        return Cause(why=paused_text(upstream), entry="paused")
    if upstream.state not in PASSABLE:
        return Cause(why=gate_text(upstream), entry=upstream.state)
    return None


def _of_workers(serving: Sequence[Worker]) -> Cause | None:
    if all(worker.load.draining for worker in serving):
        return Cause(why="all its workers are leaving", entry="nothing_moving")
    if backlog := next((worker.load.backlog for worker in serving if worker.load.backlog), ""):
        return Cause(why=f"too many results are unread in {backlog}", entry="results_high_water")
    return None


def _of_the_budget(messages: Lane, upstream: Upstream, serving: Sequence[Worker]) -> Cause | None:
    if upstream.state == "throttled":
        return Cause(why=f"the gateway asked for a pause; it ends in {span(upstream.next_call_ms)}", entry="throttled")
    if all(worker.held >= worker.concurrency for worker in serving):
        return Cause(why="every place of its workers is taken", entry="queue_age")
    waits = {str(reason): wait for reason, wait in WAITS.items()}
    if messages.in_flight and (wait := waits.get(upstream.waits_for)):
        return Cause(why=f"requests wait for {wait.meaning}", entry=wait.entry)
    return None


def _unserved(lane: str, workers: Sequence[Worker]) -> Cause:
    silent = [worker.silent_ms for worker in workers if lane in worker.lanes]
    if silent:
        return Cause(why=f"its workers fell silent {span(min(silent))} ago", entry="workers_silent")
    if not any(worker.alive for worker in workers):
        return Cause(why="no worker is alive", entry="workers_silent")
    return Cause(why="no worker serves it", entry="lane_unserved")


def paused_text(upstream: Upstream) -> str:
    """A pause's author, reason, beginning and end."""
    pause = upstream.pause
    since = f" {span(upstream.since_ms)} ago" if upstream.since_ms is not None else ""
    by = f" by {pause.by}" if pause and pause.by else ""
    reason = f", because: {pause.reason}" if pause and pause.reason else ""
    ends = f"; it ends in {span(pause.ends_ms)}" if pause and pause.ends_ms is not None else ""
    return f"the fleet was paused{since}{by}{reason}{ends}"


def gate_text(upstream: Upstream) -> str:
    """The gate that is shut, since when, and when it is tried again."""
    since = f" for {span(upstream.since_ms)}" if upstream.since_ms is not None else ""
    why = f" ({upstream.code})" if upstream.code and upstream.code != upstream.state else ""
    return f"the gateway is shut{since}: {upstream.state}{why}; it is tried again in {span(upstream.next_call_ms)}"


def span(ms: int) -> str:
    """A duration in its largest unit: `45 s`, `12 min`, `2.5 h`, `3 d`."""
    for unit, length_ms in _UNITS:
        if ms >= 2 * length_ms:
            return f"{ms / length_ms:.3g} {unit}" if unit == "h" else f"{ms // length_ms} {unit}"
    return f"{round(ms / 1000)} s"


_UNITS: Final = (("d", 86_400_000), ("h", 3_600_000), ("min", 60_000))
