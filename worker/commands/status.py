# ruff: noqa: PLC0415  # imports wait until the command runs: --help stays quick
"""`responses-worker status`."""

import json
import time
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from worker.commands.terminal import connected, settings

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from worker.operations.fleet_view import FleetReader, FleetView

AGAIN_S: Final = 2.0


def status(
    *,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Every two seconds anew, until Ctrl-C.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="All numbers as one JSON object a line.")] = False,
) -> None:
    """Say what stands still and why, or how fast the fleet moves; then show lanes, answers, workers and budget."""
    checked = settings()
    from rich.console import Console

    from worker.operations.fleet_view import FleetReader

    console = Console(highlight=False)
    with connected(checked) as redis:
        reader = FleetReader.of(checked)
        try:
            if watch and console.is_terminal and not as_json:
                _watch(console, reader, redis)
            _show(console, reader.read(redis), as_json=as_json)
            while watch:
                time.sleep(AGAIN_S)
                _show(console, reader.read(redis), as_json=as_json)
        except KeyboardInterrupt:  # how one stops watching
            raise typer.Exit from None


def _watch(console: "Console", reader: "FleetReader", redis: Any) -> None:
    """In place, on a screen of its own; the terminal's own text is back afterwards."""
    from rich.live import Live

    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            live.update(_picture(reader.read(redis)), refresh=True)
            time.sleep(AGAIN_S)


def _picture(view: "FleetView") -> "RenderableType":
    from rich.console import Group

    from worker.commands.fleet_tables import fleet_tables

    return Group(*fleet_tables(view))


def _show(console: "Console", view: "FleetView", *, as_json: bool) -> None:
    from worker.operations.fleet_json import fleet_json

    if as_json:
        typer.echo(json.dumps(fleet_json(view)))
    else:
        console.print(_picture(view), crop=False)
