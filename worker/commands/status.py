# ruff: noqa: PLC0415  # imports wait until the command runs: --help stays quick
"""`responses-worker status`."""

import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Final

import typer

from worker.commands.terminal import connected, settings

if TYPE_CHECKING:
    from rich.console import Console

    from worker.operations.overview import Overview

AGAIN_S: Final = 2.0


def status(
    *,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Every two seconds anew, until Ctrl-C.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="All numbers as one JSON object a line.")] = False,
) -> None:
    """Show what waits and runs in the lanes, who reads the results, and why nothing more is called."""
    from rich.console import Console

    from worker.operations.overview import read

    checked, console = settings(), Console(highlight=False)
    with connected(checked) as redis:
        try:
            _show(console, read(redis, checked.lanes, [checked.fleet]), as_json=as_json)
            while watch:
                time.sleep(AGAIN_S)
                if not as_json and console.is_terminal:
                    console.clear()
                _show(console, read(redis, checked.lanes, [checked.fleet]), as_json=as_json)
        except KeyboardInterrupt:  # how one stops watching
            raise typer.Exit from None


def _show(console: "Console", overview: "Overview", *, as_json: bool) -> None:
    from worker.commands.tables import overview_tables

    if as_json:
        typer.echo(json.dumps(asdict(overview)))
    else:
        console.print(*overview_tables(overview), sep="\n")
