# ruff: noqa: PLC0415  # imports wait until the command runs: --help stays quick
"""`responses-worker runbook`."""

import difflib
import json
from typing import TYPE_CHECKING, Annotated

import typer

from worker.commands.terminal import WRONG, ended, print_next

if TYPE_CHECKING:
    from rich.console import RenderableType


_Lane = Annotated[str, typer.Option(help="The lane that stands still.")]
_Group = Annotated[str, typer.Option(help="The consumer group that does not read.")]
_Route = Annotated[str, typer.Option(help="The route that is shut or paused.")]
_Account = Annotated[str, typer.Option(help="The account that is shut or paused.")]


def runbook(
    name: Annotated[
        str | None, typer.Argument(help="A failure class, state, alert, metric or reason to wait.", show_default=False)
    ] = None,
    *,
    lane: _Lane = "",
    group: _Group = "",
    route: _Route = "",
    account: _Account = "",
    rules: Annotated[bool, typer.Option("--rules", help="Print Prometheus' rules as JSON, which is YAML.")] = False,
) -> None:
    """Say what a failure class, state, alert, metric or reason to wait means, where to look first, and what ends it.

    The last line is the command to type next, for the lane, group, route or account that is given. Without NAME: all
    entries there are. Needs no settings and no connection.
    """
    from rich.console import Console

    from worker.failures.next_command import filled_in
    from worker.telemetry.rules import RULES, prometheus_groups
    from worker.telemetry.runbook import RUNBOOK
    from worker.telemetry.runbook_pages import entries_of, metric_of

    console = Console(highlight=False)
    if rules:
        typer.echo(json.dumps(prometheus_groups(), indent=2))
    elif name is None:
        console.print(_all())
    elif (metric := metric_of(name)) or entries_of(name):
        if metric:
            labels = f" by {', '.join(metric.labels)}" if metric.labels else ""
            typer.echo(f"{metric.name}, a {metric.kind}{labels}: {metric.help}")
        about = {"lane": lane, "group": group, "route": route, "account": account}
        for entry in entries_of(name):
            console.print(_one(entry))
            print_next(filled_in(RUNBOOK[entry].command, **about))
    else:
        near = difflib.get_close_matches(name, [*RUNBOOK, *(rule.alert for rule in RULES)], n=1)
        raise ended(f"{name}: no such entry" + (f"; did you mean {near[0]}?" if near else ""), WRONG)


def _one(name: str) -> "RenderableType":
    from rich.console import Group
    from rich.padding import Padding
    from rich.text import Text

    from worker.telemetry.runbook import RUNBOOK
    from worker.telemetry.runbook_pages import alerts_of

    entry = RUNBOOK[name]
    told = {
        "meaning": entry.meaning,
        "first look": entry.first_look,
        "remedy": entry.remedy,
        "alerts": "\n".join(f"{rule.alert} ({rule.severity}): {rule.expr}" for rule in alerts_of(name)),
    }
    shown = {label: Text(text) for label, text in told.items() if text}
    parts = [part for label, text in shown.items() for part in (Text(f"\n{label}", "dim"), Padding(text, (0, 2)))]
    return Group(Text(name, "bold"), *parts)


def _all() -> "RenderableType":
    from worker.commands.tables import table
    from worker.failures.classes import FAILURES
    from worker.telemetry.runbook import RUNBOOK

    entries = table("entry", "event", "pages", "meaning")
    entries.columns[-1].no_wrap = False
    classes = {str(kind): failure_class for kind, failure_class in FAILURES.items()}
    for name, entry in RUNBOOK.items():
        failure_class = classes.get(name)
        level = (failure_class.level or "none") if failure_class else "alert rule"
        entries.add_row(name, level, "yes" if failure_class and failure_class.pages else "", entry.meaning)
    return entries
