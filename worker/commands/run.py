# ruff: noqa: PLC0415  # imports wait until a command runs: --help stays quick
"""`responses-worker run`."""

import typer

from worker.commands.absent import absent
from worker.commands.terminal import settings


def run() -> None:
    """Serve the lanes until SIGTERM; settings are WORKER_* variables."""
    checked = settings()
    with absent("rich"):  # httpx and structlog import it where they find it, 0.1 s, and a worker draws nothing
        from worker.runtime.celery_app import run as run_worker

    raise typer.Exit(run_worker(checked))
