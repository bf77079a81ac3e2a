"""`responses-worker`: thin commands over the worker, its ledger and its stand-ins."""

import sys
from typing import Annotated

import typer

from worker.settings import Settings, WrongSettingsError, load

cli = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


def main() -> None:
    """The console script's entry point."""
    cli()


def settings() -> Settings:
    """The settings of the environment, or exit 2 with one line per mistake."""
    try:
        return load()
    except WrongSettingsError as error:
        sys.stderr.write(f"{error}\n")
        raise typer.Exit(2) from None


@cli.command()
def run() -> None:
    """Serve the lanes until SIGTERM."""
    from worker import app

    raise typer.Exit(app.run(settings()))


@cli.command()
def x(y: Annotated[int, typer.Option()] = 0) -> None:
    """."""
