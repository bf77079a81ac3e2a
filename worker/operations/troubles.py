"""Everything that needs somebody now, the gravest first, and the first line of `status`. Pure.

Each trouble names the command to type about it. That one prints the next, and the third at the latest is the remedy.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from api_contracts import ErrorCode
from worker.failures.classes import ERRORS
from worker.failures.next_command import look_up
from worker.operations.fleet_verdict import PASSABLE, Cause, LaneView, gate_text, paused_text, span
from worker.operations.history import Span
from worker.operations.overview import Overview, Upstream
from worker.operations.registry import Worker
from worker.operations.route_view import Place
from worker.telemetry.rules import OBJECTIVE
from worker.telemetry.runbook import RUNBOOK

FEW_FAILURES: Final = 5
"""So many failures in an hour are no trouble, whatever their share."""
MANY_ANSWERS: Final = 10
"""So many answers in a minute tell something."""
FAILING: Final = 0.5
"""A fleet of whose answers more than this share fail does not do its work, however fast it moves."""
UNREAD: Final = 100_000
"""As in the alert `ResponsesWorkerResultsUnread`."""
NAMED: Final = 3
"""Silent workers that are told by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """One thing that needs somebody."""

    text: str
    command: str
    """To type next."""
    is_grave: bool = False
    """Whether requests wait for it, or are answered in vain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The first line of `status`."""

    ok: bool
    text: str
    command: str
    """The next command to type; empty where all is well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A fleet at one moment, as far as its troubles show in it."""

    overview: Overview
    decisive: Upstream
    """The upstream that its calls depend on."""
    lanes: Mapping[str, LaneView]
    workers: Sequence[Worker]
    minute: Span = field(default_factory=lambda: Span(0))
    hour: Span = field(default_factory=lambda: Span(0))
    places: Mapping[str, Place] = field(default_factory=dict[str, Place])
    """Of the upstreams, by name."""
    targets: Mapping[str, timedelta] = field(default_factory=dict[str, timedelta])
    """WORKER_QUEUE_TARGET by lane; `*` for all others."""


def troubles_of(seen: Seen) -> list[Trouble]:
    """All of them, those that requests wait for first."""
    found = [
        *_standing(seen.lanes),
        *_shut(seen),
        *_failing(seen),
        *_late(seen),
        *_silent(seen.workers),
        *_unread(seen.overview),
        *_dead(seen.overview.dead),
    ]
    return sorted(found, key=lambda trouble: not trouble.is_grave)


def verdict_of(troubles: Sequence[Trouble], lanes: Iterable[LaneView], workers: Sequence[Worker]) -> Verdict:
    """The gravest trouble; else the rate, or that there is nothing to do, with the command about a lesser one."""
    first = next(iter(troubles), None)
    if first and first.is_grave:
        return Verdict(ok=False, text=first.text, command=first.command)
    return Verdict(ok=True, text=_going(lanes, workers), command=first.command if first else "")


def explained(entry: str, **about: str) -> str:
    """The command that explains an entry, with what its remedy needs to know."""
    return look_up(entry, **{what: name for what, name in about.items() if what.upper() in RUNBOOK[entry].command})


def _standing(lanes: Mapping[str, LaneView]) -> Iterator[Trouble]:
    """The lane with most messages first, which tells of the others."""
    standing = sorted(
        (lane for lane in lanes.values() if lane.state == "standing"), key=lambda lane: lane.messages.left, reverse=True
    )
    more = len(standing) - 1
    for number, lane in enumerate(standing):
        cause = lane.cause or Cause(why="nothing says why", entry="nothing_moving")
        age_ms = lane.still_ms if lane.still_ms is not None else lane.messages.oldest_age_ms
        since = f" for {span(age_ms)}" if age_ms is not None else ""
        others = (
            f"; {more} more {'lane stands' if more == 1 else 'lanes stand'} still too" if more and not number else ""
        )
        yield Trouble(
            text=f"lane {lane.name} stands still{since}: {cause.why}; {lane.messages.left:,} messages wait{others}",
            command=explained(cause.entry, lane=lane.name),
            is_grave=True,
        )


def _shut(seen: Seen) -> Iterator[Trouble]:
    """Pauses and gates: one for the whole fleet where an operator paused all of it, else one for each upstream."""
    if seen.decisive.state == "paused":
        yield Trouble(text=paused_text(seen.decisive), command=explained("paused"), is_grave=True)
        return
    for name, upstream in seen.overview.upstreams.items():
        if upstream.state in PASSABLE:
            continue
        about: Mapping[str, str] = seen.places[name].about if name in seen.places else {}
        told = paused_text(upstream) if upstream.state == "paused" else gate_text(upstream)
        yield Trouble(
            text=" ".join([*(f"{what} {which}:" for what, which in about.items()), told]),
            command=explained(upstream.state, **about),
            is_grave=seen.decisive.state not in PASSABLE,
        )


def _failing(seen: Seen) -> Iterator[Trouble]:
    """Failures that are no fault of callers, above the share that the objective bears."""
    hour, minute = _ours(seen.hour), _ours(seen.minute)
    many, now = hour.total(), minute.total()
    if many <= FEW_FAILURES or many <= (1 - OBJECTIVE) * seen.hour.answers():
        return
    if seen.minute.answers() >= MANY_ANSWERS and now > FAILING * seen.minute.answers():
        ((code, _),) = minute.most_common(1)
        share = f"{now / seen.minute.answers():.0%}"
        yield Trouble(
            text=f"answers fail: {share} of the last minute, most with {code}", command=explained(code), is_grave=True
        )
        return
    ((code, _),) = hour.most_common(1)
    if not now and seen.overview.failed and ERRORS[ErrorCode(code)].retryable:
        yield Trouble(
            text=f"{many:,} requests failed in the last hour, most with {code}; none did in the last minute",
            command=f"responses-worker redrive --code {code} --dry-run",
        )
    elif now or not ERRORS[ErrorCode(code)].retryable:
        share = f"{many / seen.hour.answers():.1%}"
        yield Trouble(text=f"{share} of the last hour's answers failed, most with {code}", command=explained(code))


def _ours(spell: Span) -> Counter[str]:
    """Failures by code that are not the fault of callers, nor of nobody."""
    return Counter({code: count for code, count in spell.failures().items() if code in _OURS})


_OURS: Final = {str(code) for code, row in ERRORS.items() if row.fault not in ("caller", "none")}


def _late(seen: Seen) -> Iterator[Trouble]:
    for lane in seen.lanes.values():
        target = seen.targets.get(lane.name, seen.targets.get("*"))
        age_ms = lane.messages.oldest_age_ms
        if target is None or age_ms is None or lane.state not in ("moving", "calling"):
            continue
        target_ms = round(target.total_seconds() * 1000)
        if age_ms > target_ms:
            text = f"lane {lane.name}: the next request has waited for {span(age_ms)}; the target is {span(target_ms)}"
            yield Trouble(text=text, command=explained("queue_age"))


def _silent(workers: Sequence[Worker]) -> Iterator[Trouble]:
    silent = [worker for worker in workers if not worker.alive]
    if silent:
        names = ", ".join(worker.host for worker in silent[:NAMED])
        yield Trouble(text=f"silent workers: {len(silent)} ({names})", command=explained("workers_silent"))


def _unread(overview: Overview) -> Iterator[Trouble]:
    for stream, found in overview.streams.items():
        for name, group in found.groups.items():
            unread = (group.unread or 0) + group.pending
            if unread > UNREAD:
                text = f"group {name} has not read {unread:,} results of {stream}"
                yield Trouble(text=text, command=explained("results_high_water", group=name))


def _dead(count: int) -> Iterator[Trouble]:
    if count:
        yield Trouble(text=f"dead letters: {count:,}", command=RUNBOOK["dead_letters"].command)


def _going(lanes: Iterable[LaneView], workers: Sequence[Worker]) -> str:
    rate, calling = 0.0, 0
    for lane in lanes:
        rate, calling = rate + lane.per_second, calling + lane.calling
    if rate:
        return f"moving: {rate:,.1f}/s"
    if calling:
        return f"working: {calling:,} calls under way, and none has ended in the last ten seconds"
    alive = sum(worker.alive for worker in workers)
    return f"idle: nothing waits, and {alive} {'worker is' if alive == 1 else 'workers are'} there"
