# ruff: noqa: PLC0415  # imports wait until the command runs: --help stays quick
"""`responses-worker simulator`."""

import json
from typing import Annotated, Any, cast

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
    r"""Run the simulated gateway until Ctrl-C; prints its URL.

    Prompts say what becomes of their call:
    "Hello! [\[sim:500*2]]" fails twice and is then answered.
    """
    import asyncio

    from worker.devtools.simulator import SimulatorConfig, fault_table, serve_until_signalled

    if markers:
        typer.echo(fault_table())
        return
    try:
        settings = SimulatorConfig().changed({"requests_per_minute": rpm, "tokens_per_minute": tpm} | _object(config))
    except ValueError as error:
        raise ended(f"--config: {error}", WRONG) from None
    try:
        asyncio.run(serve_until_signalled(settings, port=port, ready=_announce))
    except OSError as error:
        raise ended(f"--port {port}: {error.strerror}") from None


def _object(text: str) -> dict[str, Any]:
    content: object = json.loads(text)
    if not isinstance(content, dict):
        raise ValueError("must be a JSON object")  # noqa: TRY004  # as every other mistake of the configuration
    return cast("dict[str, Any]", content)


def _announce(url: str) -> None:
    typer.echo(url)
    typer.echo(f"A worker in front of it: WORKER_UPSTREAM_URL={url} responses-worker run", err=True)
