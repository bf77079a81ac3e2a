# ruff: noqa: PLC0415  # imports wait until the command runs: --help stays quick
"""`responses-worker status`."""

import json
from typing import Annotated

import typer

from worker.commands.terminal import connected, settings


def status(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="All numbers as one JSON object.")] = False,
) -> None:
    """Show what waits and runs in the lanes, and who reads the results."""
    from dataclasses import asdict

    from rich.console import Console

    from worker.commands.tables import overview_tables
    from worker.operations.overview import read

    checked = settings()
    with connected(checked) as redis:
        overview = read(redis, checked.lanes)
    if as_json:
        typer.echo(json.dumps(asdict(overview)))
    else:
        Console(highlight=False).print(*overview_tables(overview), sep="\n")
