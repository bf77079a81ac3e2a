# ruff: noqa: PLC0415  # imports wait until the command runs: --help stays quick
"""`responses-worker simulator`."""

import json
from typing import Annotated, Any

import typer

from worker.commands.terminal import WRONG, ended


def simulator(
    *,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 is any free port.")] = 0,
    rpm: Annotated[int, typer.Option(min=0, help="Requests a minute it allows; 0 is no limit.")] = 0,
    tpm: Annotated[int, typer.Option(min=0, help="Tokens a minute it allows; 0 is no limit.")] = 0,
    config: Annotated[str, typer.Option(metavar="JSON", help="Any setting of SimulatorConfig.")] = "{}",
    markers: Annotated[bool, typer.Option("--markers", help="Print what prompts can ask for, and leave.")] = False,
) -> None:
    """Run the simulated gateway until Ctrl-C; prints its URL, for WORKER_UPSTREAM_URL.

    Prompts say what becomes of their call: "Hello! [[sim:500*2]]" fails twice, then is answered.
    """
    import asyncio

    from worker.simulator import SimulatorConfig, fault_table, serve_until_signalled

    if markers:
        typer.echo(fault_table())
        return
    try:
        given: Any = json.loads(config)
        changes = {"requests_per_minute": rpm, "tokens_per_minute": tpm} | given
        gateway = SimulatorConfig().changed(changes)
    except (ValueError, TypeError) as error:
        raise ended(f"--config: {error}", WRONG) from None
    try:
        asyncio.run(serve_until_signalled(gateway, port=port, ready=typer.echo))
    except OSError as error:
        raise ended(f"--port: {error.strerror}") from None
