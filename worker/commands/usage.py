# ruff: noqa: PLC0415  # imports wait until the command runs: --help stays quick
"""`responses-worker usage`."""

import json
from dataclasses import asdict
from datetime import timedelta
from typing import Annotated

import typer

from worker.commands.options import duration
from worker.commands.terminal import connected, settings


def usage(
    *,
    tenant: Annotated[str | None, typer.Option(help="Of this tenant only.")] = None,
    since: Annotated[
        timedelta,
        typer.Option(parser=duration, metavar="AGE", help="Of the days that the last so long touches; 35 are kept."),
    ] = "7d",  # pyright: ignore[reportArgumentType]  # Typer parses it
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object for each, on a line of its own.")] = False,
) -> None:
    """Show requests, failures, tokens and cost by day (UTC), tenant and model: the sums of the published results."""
    from worker.commands.usage_output import usage_table
    from worker.operations.overview import server_ms
    from worker.operations.usage import read

    with connected(settings()) as redis:
        rows = read(redis, server_ms(redis), since, tenant)
    if as_json:
        for row in rows:
            typer.echo(json.dumps(asdict(row), default=str))
    elif rows:
        usage_table(rows)
    else:
        typer.echo("nothing was published")
