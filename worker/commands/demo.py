# ruff: noqa: PLC0415  # imports wait until the command runs: --help stays quick
"""`responses-worker demo`."""

import os
import signal
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from worker.commands.terminal import FAILED, stop

if TYPE_CHECKING:
    from rich.console import Console

    from worker.demo import Listener
    from worker.scenes import Report

_EXAMPLES: Final = Path(__file__).parents[2] / "examples"
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def demo(
    simulated: Annotated[
        bool, typer.Option("--simulated", help="Use the simulated gateway even where there is a key for a real one.")
    ] = False,
) -> None:
    """Play the main job end to end on this machine: embedded Valkey, a gateway, a real worker; about 10 seconds.

    The gateway is simulated, or WORKER_UPSTREAM_URL where WORKER_UPSTREAM_API_KEY is set. Exit code 0 if every
    request got exactly the one result it should.
    """
    from tempfile import TemporaryDirectory

    from rich.console import Console

    simulated = simulated or not os.environ.get("WORKER_UPSTREAM_API_KEY")
    # As wide as its table wants where nobody looks at a terminal.
    console = Console(highlight=False, width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 110)
    with _deferred_signals() as interrupted, TemporaryDirectory(prefix="responses-demo-") as directory:
        pass
