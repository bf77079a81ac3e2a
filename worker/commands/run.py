# ruff: noqa: PLC0415  # imports wait until a command runs: --help stays quick
"""`responses-worker run`."""

import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import typer

from worker.commands.terminal import settings


def run() -> None:
    """Serve the lanes until SIGTERM; settings are WORKER_* variables."""
    checked = settings()
    with _absent("rich"):  # httpx and structlog import it where they find it, 0.1 s, and a worker draws nothing
        from worker.runtime.celery_app import run as run_worker

    raise typer.Exit(run_worker(checked))


@contextmanager
def _absent(module: str) -> Generator[None]:
    """Imports find no such module meanwhile, and later ones do."""
    modules: dict[str, Any] = sys.modules  # None marks what cannot be imported
    modules[module] = None
    try:
        yield
    finally:
        del modules[module]
