"""One fleet in one look, as tables for people: the verdict, every lane, what was answered, who asks, who works."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from rich.console import RenderableType
from rich.text import Text

from worker.commands.printable import name_shown
from worker.commands.sparkline import sparkline
from worker.commands.tables import NOTHING, moment, overview_tables, ready, table
from worker.failures.next_command import NEXT
from worker.operations.fleet_verdict import LaneView, span
from worker.operations.fleet_view import FleetView
from worker.operations.history import Span
from worker.operations.registry import Worker
from worker.operations.troubles import Verdict

TENANTS_SHOWN: Final = 5
WORKERS_SHOWN: Final = 20
TROUBLES_SHOWN: Final = 8
NAMES_SHOWN: Final = 30
_STYLES: Final = {"standing": "bold red", "moving": "green", "calling": "green", "scheduled": "yellow", "idle": "dim"}


def fleet_tables(view: FleetView) -> Iterable[RenderableType]:
    """The verdict first: what stands still and why, or how fast it moves; and what to type next."""
    yield verdict_line(view.verdict)
    yield from _troubles(view)
    if view.verdict.command:
        yield _whole(f"{NEXT}{view.verdict.command}", "bold")
    yield ""
    yield _lanes(view.lanes)
    yield from _whys(view.lanes)
    yield ""
    yield _answers(view.last_minute, view.last_hour)
    yield _rates(view.minutes)
    yield ""
    yield from _workers(view.workers)
    yield from _tenants(view.tenants)
    yield ""
    yield from overview_tables(view.overview)


def _troubles(view: FleetView) -> Iterable[Text]:
    """Those that the verdict does not tell."""
    others = [trouble for trouble in view.troubles if trouble.text != view.verdict.text]
    for trouble in others[:TROUBLES_SHOWN]:
        about = "" if trouble.command == view.verdict.command else f": `{trouble.command}`"
        yield _whole(f"also: {name_shown(trouble.text, 500)}{about}", "red")
    if len(others) > TROUBLES_SHOWN:
        yield _whole(f"and {len(others) - TROUBLES_SHOWN} more such troubles", "red")


def verdict_line(verdict: Verdict) -> Text:
    return _whole(name_shown(verdict.text, 500), "bold green" if verdict.ok else "bold red")


def _whole(line: str, style: str) -> Text:
    """A line that stays one, so that its command can be copied."""
    return Text(line, style, no_wrap=True, overflow="ignore")


def _lanes(lanes: Mapping[str, LaneView]) -> RenderableType:
    numbers = ("ready", "oldest", "held", "parked", "per s", "workers")
    made = table("lane", "state", *numbers, numbers=numbers)
    for lane in lanes.values():
        told = lane.messages
        made.add_row(
            Text(name_shown(lane.name, NAMES_SHOWN)),
            Text(lane.state, _STYLES[lane.state]),
            ready(told.ready),
            NOTHING if told.oldest_age_ms is None else Text(span(told.oldest_age_ms)),
            str(told.in_flight),
            str(told.parked),
            f"{lane.per_second:,.1f}",
            "others'" if lane.served_elsewhere else str(lane.workers),
        )
    return made


def _whys(lanes: Mapping[str, LaneView]) -> Iterable[RenderableType]:
    for lane in lanes.values():
        name, lease_ms = name_shown(lane.name, NAMES_SHOWN), lane.messages.oldest_lease_ms
        if lease_ms is not None and lease_ms < 0:
            yield Text(f"{name}: a lease ran out {span(-lease_ms)} ago: a worker died, or cannot reach Redis", "red")
        if lane.messages.next_due_ms is not None:
            yield Text(f"{name}: the next parked message is due ", "dim").append(moment(lane.messages.next_due_ms))


def _answers(minute: Span, hour: Span) -> RenderableType:
    made = table("answers", "last minute", "last hour", numbers=("last minute", "last hour"))
    names = [*hour.by_which("answers")] or ["completed"]
    for name in names:
        made.add_row(name, f"{minute.by_which('answers')[name]:,}", f"{hour.by_which('answers')[name]:,}")
    recent = minute.failures()
    for code, count in hour.failures().items():
        made.add_row(Text(f"  {code}", "red"), f"{recent.get(code, 0):,}", f"{count:,}")
    made.add_row("calls refused with 429", f"{minute.throttled():,}", f"{hour.throttled():,}")
    for route, calls in hour.by_whom("calls").items():
        made.add_row(Text(f"calls by {name_shown(route)}"), f"{minute.by_whom('calls')[route]:,}", f"{calls:,}")
    for share in (0.5, 0.95):
        times = (span_or_nothing(each.percentile_ms("total", share)) for each in (minute, hour))
        made.add_row(f"time to the answer, p{share * 100:.0f}", *times)
    return made


def span_or_nothing(ms: int | None) -> Text:
    if ms is None:
        return NOTHING
    return Text(f"{ms} ms" if ms < 1000 else f"{ms / 1000:.1f} s")  # noqa: PLR2004  # a second


def _rates(minutes: Sequence[Span]) -> RenderableType:
    """The last hour, a bar a minute: answers, failures, refusals."""
    made = table("last hour, a minute each", "", numbers=())
    rows = {
        "answers": [each.answers() for each in minutes],
        "failed": [sum(each.failures().values()) for each in minutes],
        "429s": [each.throttled() for each in minutes],
    }
    for name, numbers in rows.items():
        if any(numbers):
            made.add_row(name, Text(sparkline(numbers)))
    return made if made.row_count else Text("nothing was answered in the last hour", "dim")


def _workers(workers: Sequence[Worker]) -> Iterable[RenderableType]:
    made = table("worker", "version", "up", "holds", "calling", "of", "lanes", numbers=("up", "holds", "calling", "of"))
    for worker in workers[:WORKERS_SHOWN]:
        made.add_row(
            Text(name_shown(f"{worker.host}:{worker.pid}"), "" if worker.alive else "red"),
            Text(name_shown(worker.version)),
            span(round(worker.up_s * 1000)),
            str(worker.held),
            str(worker.calling),
            str(worker.concurrency),
            Text(_doing(worker)),
        )
    yield made if workers else Text("no worker is there", "bold red")
    if len(workers) > WORKERS_SHOWN:
        yield Text(f"and {len(workers) - WORKERS_SHOWN} more workers")


def _doing(worker: Worker) -> str:
    lanes = name_shown(",".join(f"{lane}={weight}" for lane, weight in worker.lanes.items()), 60)
    if not worker.alive:
        return f"{lanes}; silent for {span(worker.silent_ms)}"
    return f"{lanes}; leaving" if worker.load.draining else lanes


def _tenants(tenants: Mapping[str, int]) -> Iterable[RenderableType]:
    top = list(tenants.items())[:TENANTS_SHOWN]
    if top:
        told = ", ".join(f"{name_shown(tenant, 40)} {count:,}" for tenant, count in top)
        yield Text(f"busiest tenants of the hour: {told}")
