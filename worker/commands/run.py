# ruff: noqa: PLC0415  # imports wait until a command runs: --help stays quick
"""`responses-worker run`."""

import typer

from worker.commands.terminal import settings


def run() -> None:
    """Serve the lanes until SIGTERM; settings are WORKER_* variables."""
    checked = settings()
    from worker.runtime.celery_app import run as run_worker

    raise typer.Exit(run_worker(checked))
