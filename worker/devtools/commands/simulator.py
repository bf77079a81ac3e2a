# ruff: noqa: PLC0415  # imports wait until the command runs: --help stays quick
"""`responses-worker simulator`."""

import json
import shlex
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Final, cast

import typer

from worker.commands.terminal import WRONG, command_path, ended

if TYPE_CHECKING:
    from worker.devtools.simulator import SimulatorConfig

_ANY_KEY: Final = "any"


def simulator(
    *,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 is any free port.")] = 0,
    rpm: Annotated[int, typer.Option(min=0, help="Requests a minute it allows; 0 is no limit.")] = 0,
    tpm: Annotated[int, typer.Option(min=0, help="Tokens a minute it allows; 0 is no limit.")] = 0,
    config: Annotated[str, typer.Option(metavar="JSON", help="Any setting of SimulatorConfig.")] = "{}",
    redis: Annotated[bool, typer.Option("--redis", help="Run an embedded Valkey beside it.")] = False,
    markers: Annotated[bool, typer.Option("--markers", help="Print what prompts can ask for, and leave.")] = False,
) -> None:
    r"""Run the simulated gateway until Ctrl-C; prints its URL.

    With --redis it prints `export` lines instead:
    paste them into another terminal, and every command works there.
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
        with _beside(settings, redis=redis) as announce:
            asyncio.run(serve_until_signalled(settings, port=port, ready=announce))
    except OSError as error:
        raise ended(f"--port {port}: {error.strerror}") from None


@contextmanager
def _beside(settings: "SimulatorConfig", *, redis: bool) -> Generator[Callable[[str], None]]:
    """Runs a Valkey if `redis` asks for one. Yields the function that tells people how to use what runs."""
    from worker.devtools.devstack import DevstackError, embedded_valkey

    key = next(iter(settings.keys), _ANY_KEY)
    if not redis:
        yield lambda url: _print_url(url, key)
        return
    try:
        with embedded_valkey() as valkey:
            yield lambda url: _print_exports(valkey.url, url, key)
    except DevstackError as error:
        raise ended(f"--redis: {error}") from None


def _object(text: str) -> dict[str, Any]:
    content: object = json.loads(text)
    if not isinstance(content, dict):
        raise ValueError("must be a JSON object")  # noqa: TRY004  # as every other mistake of the configuration
    return cast("dict[str, Any]", content)


def _print_url(url: str, key: str) -> None:
    typer.echo(url)
    settings = f"WORKER_UPSTREAM_URL={url} WORKER_UPSTREAM_API_KEY={shlex.quote(key)}"
    typer.echo(f"A worker that calls it: {settings} {command_path()} run", err=True)


def _print_exports(redis_url: str, url: str, key: str) -> None:
    exports = {
        "WORKER_REDIS_URL": redis_url,
        "WORKER_UPSTREAM_URL": url,
        "WORKER_UPSTREAM_API_KEY": key,
        "WORKER_HTTP_PORT": "0",  # another program may have port 8080
    }
    for name, value in exports.items():
        typer.echo(f"export {name}={shlex.quote(value)}")
    typer.echo("Paste these lines into another terminal. Ctrl-C here ends both servers.", err=True)
