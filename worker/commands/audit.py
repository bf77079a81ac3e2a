# ruff: noqa: PLC0415  # imports wait until the command runs: --help stays quick
"""`responses-worker audit`."""

import json
from dataclasses import asdict
from datetime import timedelta
from itertools import islice, takewhile
from typing import Annotated

import typer

from worker.commands.options import duration
from worker.commands.terminal import connected, settings


def audit(
    *,
    since: Annotated[
        timedelta | None, typer.Option(parser=duration, metavar="AGE", help="Of the last so long only, such as 24h.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most this many.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object for each, on a line of its own.")] = False,
) -> None:
    """Show what operators did: when, who, from where, what and why; the newest first."""
    from worker.commands.audit_output import acts_table
    from worker.operations.audit import Audit
    from worker.operations.overview import server_ms

    current = settings()
    with connected(current) as redis:
        oldest_ms = server_ms(redis) - round(since.total_seconds() * 1000) if since else 0
        acts = takewhile(lambda act: act.at_ms >= oldest_ms, Audit(redis, current.fleet).read())
        shown = list(islice(acts, limit))
    if as_json:
        for act in shown:
            typer.echo(json.dumps(asdict(act)))
    elif shown:
        acts_table(shown)
    else:
        typer.echo("nobody did anything")
