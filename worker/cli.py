"""`responses-worker`: thin commands over the worker, its ledger and its stand-ins."""

from importlib.util import find_spec
from typing import Annotated

import typer

from worker import __version__
from worker.commands.audit import audit
from worker.commands.batch import batch
from worker.commands.contracts import contracts
from worker.commands.dashboard import dashboard
from worker.commands.dead import dead
from worker.commands.doctor import doctor
from worker.commands.left_out import leave_out
from worker.commands.operate import limits, pause, resume
from worker.commands.redrive import redrive
from worker.commands.requests import cancel, show
from worker.commands.results import results
from worker.commands.routes import routes
from worker.commands.run import run
from worker.commands.runbook import runbook
from worker.commands.status import status
from worker.commands.submit import submit
from worker.commands.usage import usage

cli = typer.Typer(
    help="A Celery worker that turns queued generation requests into published results.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich takes 0.1 s to draw boxes around the help
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)


def _print_version(wanted: bool) -> None:  # noqa: FBT001  # as Typer calls it
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@cli.callback()
def _options(
    *,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and leave.")
    ] = False,
) -> None:
    _ = version


for command in (
    run,
    submit,
    batch,
    results,
    status,
    routes,
    show,
    cancel,
    redrive,
    pause,
    resume,
    limits,
    audit,
    usage,
    doctor,
    runbook,
    dashboard,
    contracts,
):
    cli.command()(command)
cli.add_typer(dead, name="dead")

if find_spec("worker.devtools"):
    from worker.devtools.commands.demo import demo
    from worker.devtools.commands.dev import dev
    from worker.devtools.commands.simulator import simulator

    cli.command()(simulator)
    cli.command()(demo)
    cli.command()(dev)
else:
    leave_out(cli, "simulator", "demo", "dev")
