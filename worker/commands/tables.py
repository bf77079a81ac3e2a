"""The contents of Redis, as tables for people."""

from collections.abc import Iterable, Mapping
from typing import Final

from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from worker.commands.printable import name_shown
from worker.operations.fleet_verdict import paused_text
from worker.operations.overview import Budget, Group, Overview, Stream, Upstream

NOTHING: Final = Text("-", "dim")

STRAYS_SHOWN: Final = 10
NAME_SHOWN: Final = 100

WAITS_FOR: Final = {
    "requests": "the budget of requests",
    "tokens": "the budget of tokens",
    "concurrency": "a call in flight to end",
    "share": "the turn of its lane",
}
"""The words of `worker/admission/lua/admit.lua` for operators."""


def overview_tables(overview: Overview) -> Iterable[RenderableType]:
    """Result streams with their groups, upstreams, dead letters."""
    upstreams = (_upstream(name, upstream) for name, upstream in overview.upstreams.items())
    for made in (_streams(overview.streams), *upstreams):
        yield made
        yield ""
    yield Text(f"dead letters: {overview.dead}", "bold red" if overview.dead else "dim")
    yield Text(f"failed requests that `redrive` can run anew: {overview.failed}", "dim")
    for name, size in list(overview.strays.items())[:STRAYS_SHOWN]:
        yield Text(f"no worker serves {shown_key(name)}: {size} messages", "bold red")
    if len(overview.strays) > STRAYS_SHOWN:
        yield Text(f"and {len(overview.strays) - STRAYS_SHOWN} more such keys", "bold red")


def shown_key(name: str) -> str:
    """A key as a terminal may show it: producers choose these names."""
    return ascii(name)[:NAME_SHOWN]


def table(*columns: str, numbers: Iterable[str] = ()) -> Table:
    """An empty table of the look all commands share; the columns in `numbers` are aligned right."""
    made = Table(box=SIMPLE_HEAD, header_style="bold", padding=(0, 1, 0, 0), show_edge=False)
    for column in columns:
        made.add_column(column, justify="right" if column in set(numbers) else "left", no_wrap=True)
    return made


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
            own = (_name(name), str(stream.entries)) if number == 0 else ("", "")
            streams_table.add_row(*own, *_group(group_name, group))
    return streams_table


def _group(name: str, group: Group | None) -> tuple[RenderableType, RenderableType, RenderableType]:
    if group is None:
        return NOTHING, NOTHING, NOTHING
    return _name(name), "?" if group.unread is None else str(group.unread), str(group.pending)


def _name(name: str) -> Text:
    """Of something that anybody may name: as `Text`, so that rich reads no markup in it."""
    return Text(name_shown(name))


def _upstream(name: str, upstream: Upstream) -> Table:
    """One fact a row: its numbers are wider than a terminal."""
    facts = table("upstream", name)
    facts.add_row("state", Text(upstream.state, "green" if upstream.state == "open" else "bold yellow"))
    if upstream.next_call_ms:
        facts.add_row("next call", moment(upstream.next_call_ms))
    facts.add_row("requests a minute", _budget(upstream.requests))
    facts.add_row("tokens a minute", _budget(upstream.tokens))
    limit = f" of {upstream.in_flight_limit}" if upstream.in_flight_limit else ""
    facts.add_row("calls in flight", f"{upstream.in_flight}{limit}")
    facts.add_row("waiting", Text(f"{upstream.waiting}: {why_waiting(upstream)}") if upstream.waiting else "0")
    return facts


def _budget(budget: Budget) -> RenderableType:
    """Used in the last minute, of what the fleet may now, of the limit."""
    if not budget.rate:
        return f"{budget.used:,} used" if budget.used else NOTHING
    limit = f"limit {budget.limit:,}" if budget.limit else "no limit known"
    return f"{budget.used:,} used, {budget.rate:,.0f} allowed now, {limit}"


def why_waiting(upstream: Upstream) -> str:
    """The reason why requests wait and its end, in the order in which admission decides."""
    if upstream.state == "paused":
        return f"{paused_text(upstream)}; `resume` ends it"
    if upstream.state == "throttled":
        return "the gateway asked for a pause"
    if upstream.state != "open":
        return f"one probe must succeed: `runbook {upstream.code or upstream.state}`"
    return f"for {WAITS_FOR.get(upstream.waits_for, 'its turn')}"


def ready(by_priority: Mapping[int, int]) -> str:
    total = sum(by_priority.values())
    if total == by_priority.get(0, 0):
        return str(total)
    parts = ", ".join(f"p{priority}: {count}" for priority, count in by_priority.items() if count)
    return f"{total} ({parts})"


def moment(ms: int | None, style: str = "") -> Text:
    if ms is None:
        return NOTHING
    return Text(f"in {ms / 1000:.0f} s" if ms >= 0 else f"{-ms / 1000:.0f} s ago", style)
