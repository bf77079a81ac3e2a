# ruff: noqa: PLC0415  # imports wait until the command runs: --help stays quick
"""`responses-worker routes`."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from worker.commands.terminal import connected, settings

if TYPE_CHECKING:
    from rich.table import Table

    from worker.operations.route_view import RouteView


def routes(
    *, as_json: Annotated[bool, typer.Option("--json", help="One JSON object a route, a line each.")] = False
) -> None:
    """Show each route: its state and why, what its account may start now, its last error and its share of the calls."""
    from rich.console import Console

    from worker.operations.route_view import read_routes, table_of

    current = settings()
    with connected(current) as redis:
        views = read_routes(redis, table_of(current))
    if as_json:
        for view in views:
            typer.echo(json.dumps(asdict(view)))
    else:
        Console(highlight=False).print(_table(views))


def _table(views: "list[RouteView]") -> "Table":
    from rich.text import Text

    from worker.commands.tables import table

    numbers = ("order", "in flight", "a minute", "headroom", "share")
    made = table(
        "route",
        "account",
        "order",
        "state",
        "in flight",
        "a minute",
        "headroom",
        "share",
        "last error",
        numbers=numbers,
    )
    for view in views:
        made.add_row(
            view.name,
            view.account,
            str(view.order),
            Text(_state(view), "green" if view.state == "open" else "bold yellow"),
            str(view.in_flight),
            f"{view.allowed:,.0f}",
            f"{view.headroom:,.0f}",
            f"{view.share:.0%}",
            f"{view.last_error}, {view.last_error_ms / 1000:.0f} s ago" if view.last_error else "",
        )
    return made


def _state(view: "RouteView") -> str:
    """The state, why, and for how long."""
    code = f" ({view.code})" if view.code not in ("", view.state) else ""
    return f"{view.state}{code}" + (f", tried in {view.next_call_ms / 1000:.0f} s" if view.next_call_ms else "")
