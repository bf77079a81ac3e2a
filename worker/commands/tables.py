"""What is in Redis, as tables for people."""

from collections.abc import Iterable, Mapping
from typing import Final

from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from worker.overview import Group, Lane, Overview, Stream, Upstream

_NOTHING: Final = Text("-", "dim")


def overview_tables(overview: Overview) -> Iterable[RenderableType]:
    """Lanes, result streams with their groups, upstreams, dead letters."""
    for made in (_lanes(overview.lanes), _streams(overview.streams), _upstreams(overview.upstreams)):
        yield made
        yield ""
    yield Text(f"dead letters: {overview.dead}", "bold red" if overview.dead else "dim")


def table(*columns: str, numbers: Iterable[str] = ()) -> Table:
    """An empty table of the look all commands share; the columns in `numbers` are aligned right."""
    made = Table(box=SIMPLE_HEAD, header_style="bold", padding=(0, 1, 0, 0), show_edge=False)
    for column in columns:
        made.add_column(column, justify="right" if column in set(numbers) else "left", no_wrap=True)
    return made


def _lanes(lanes: Mapping[str, Lane]) -> Table:
    numbers = ("ready", "in flight", "parked", "first lease ends", "next due")
    lanes_table = table("lane", *numbers, numbers=numbers)
    for name, lane in lanes.items():
        late = lane.oldest_lease_ms is not None and lane.oldest_lease_ms < 0
        lanes_table.add_row(
            name,
            _ready(lane.ready),
            str(lane.in_flight),
            str(lane.parked),
            _moment(lane.oldest_lease_ms, "red" if late else ""),
            _moment(lane.next_due_ms),
        )
    return lanes_table


def _streams(streams: Mapping[str, Stream]) -> Table:
    streams_table = table(
        "results",
        "entries",
        "consumer group",
        "unread",
        "unacknowledged",
        numbers=("entries", "unread", "unacknowledged"),
    )
    for name, stream in streams.items():
        groups: list[tuple[str, Group | None]] = [*stream.groups.items()] or [("none", None)]
        for number, (group_name, group) in enumerate(groups):
            own = (name, str(stream.entries)) if number == 0 else ("", "")
            streams_table.add_row(*own, *_group(group_name, group))
    return streams_table


def _group(name: str, group: Group | None) -> tuple[RenderableType, RenderableType, RenderableType]:
    if group is None:
        return _NOTHING, _NOTHING, _NOTHING
    return name, "?" if group.unread is None else str(group.unread), str(group.pending)


def _upstreams(upstreams: Mapping[str, Upstream]) -> Table:
    numbers = ("calls in flight", "next call")
    upstreams_table = table("upstream", "state", *numbers, numbers=numbers)
    for name, upstream in upstreams.items():
        upstreams_table.add_row(
            name,
            Text(upstream.state, "green" if upstream.state == "open" else "bold yellow"),
            str(upstream.in_flight),
            _moment(upstream.next_call_ms or None),
        )
    return upstreams_table


def _ready(by_priority: Mapping[int, int]) -> str:
    total = sum(by_priority.values())
    if total == by_priority.get(0, 0):
        return str(total)
    parts = ", ".join(f"p{priority}: {count}" for priority, count in by_priority.items() if count)
    return f"{total} ({parts})"


def _moment(ms: int | None, style: str = "") -> Text:
    if ms is None:
        return _NOTHING
    return Text(f"in {ms / 1000:.0f} s" if ms >= 0 else f"{-ms / 1000:.0f} s ago", style)
