# ruff: noqa: PLC0415  # imports wait until the command runs: --help stays quick
"""`responses-worker dev`."""

import shlex
import tempfile
import time
from pathlib import Path
from typing import Annotated, Final

import typer

from worker.commands.terminal import ended
from worker.devtools.commands.signals import noted_signals

_TICK_S: Final = 0.2


def dev(
    *,
    redis_port: Annotated[int, typer.Option(min=0, max=65535, help="0 = any free port.")] = 6379,
    page_port: Annotated[int, typer.Option(min=0, max=65535, help="Of the dashboard; 0 = any free port.")] = 8090,
    rpm: Annotated[int, typer.Option(min=0, help="Requests a minute the gateway allows; 0 is no limit.")] = 0,
) -> None:
    """Keep a Valkey, a simulated gateway, a worker and the dashboard up until Ctrl-C.

    Prints export lines: paste them into another terminal, and every command and every snippet of the docs works there.
    """
    from worker.devtools.dev import running
    from worker.devtools.devstack import DevstackError

    with noted_signals() as signals, tempfile.TemporaryDirectory(prefix="responses-dev-") as directory:
        log = Path(directory) / "worker.log"
        try:
            with running(redis_port=redis_port, page_port=page_port, rpm=rpm, log=log) as here:
                for name, value in here.exports.items():
                    typer.echo(f"export {name}={shlex.quote(value)}")
                typer.echo(f"The dashboard: {here.page}", err=True)
                typer.echo(f"The worker's log: {log}", err=True)
                typer.echo("Paste the export lines into another terminal. Ctrl-C here ends everything.", err=True)
                while not signals and not here.fallen():
                    time.sleep(_TICK_S)
                fallen = "" if signals else here.fallen()
        except DevstackError as error:
            raise ended(f"dev: {error}; --redis-port 0 and --page-port 0 take any free ports") from None
        if fallen:
            raise ended(f"dev: {fallen} ended by itself: {log.read_text(encoding='utf-8', errors='replace')[-800:]}")
