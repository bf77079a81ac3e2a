# ruff: noqa: PLC0415  # imports wait until the command runs: --help stays quick
"""`responses-worker demo`."""

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from worker.commands.terminal import INTERRUPTED, command_path, ended, settings
from worker.devtools.commands.signals import noted_signals

if TYPE_CHECKING:
    from rich.console import Console

    from worker.devtools.demo.scenarios import Report, Request

_PACKAGE: Final = Path(__file__).parents[2]
_EXAMPLES: Final = (_PACKAGE / "examples", _PACKAGE.parent / "examples")
"""The folder of a wheel, and that of a checkout."""
_KEYS: Final = ("WORKER_UPSTREAM_API_KEY", "WORKER_UPSTREAM_API_KEY_FILE")
_WIDTH: Final = 110
"""The width of the table if stdout is no terminal."""


class _InterruptedError(Exception):
    """A signal asked the demo to end."""


def demo(
    *,
    simulated: Annotated[bool, typer.Option("--simulated", help="Spend nothing, even where there is a key.")] = False,
) -> None:
    """Play the main job end to end on this machine, in about 10 seconds.

    Starts a Valkey, a simulated gateway and a real worker, and stops them.
    With WORKER_UPSTREAM_API_KEY set, the gateway is the real one.
    Exit code 0: every request got exactly one result, the expected one.
    """
    from rich.console import Console

    from worker.devtools.demo import demo_output as playbill
    from worker.devtools.demo import scenarios as scenes

    on_terminal = sys.stdout.isatty() or "COLUMNS" in os.environ
    console = Console(highlight=False, width=None if on_terminal else _WIDTH)
    simulated = simulated or not any(os.environ.get(name) for name in _KEYS)
    requests = _requests(simulated=simulated)
    console.print(playbill.overture(requests, "" if simulated else settings().upstream_url))
    log = Path(tempfile.mkdtemp(prefix="responses-demo-")) / "worker.log"
    report = _played(requests, simulated=simulated, log=log, console=console)
    problems = scenes.problems(report)
    console.print(playbill.report_table(report), playbill.verdict(report, problems), sep="\n")
    if problems:
        raise ended(_log_hint(log))
    shutil.rmtree(log.parent)
    console.print(playbill.next_steps(command_path()))


def _requests(*, simulated: bool) -> "list[Request]":
    from worker.devtools.demo.scenarios import requests_of

    try:
        return requests_of(next(filter(Path.is_dir, _EXAMPLES), _EXAMPLES[0]), simulated=simulated)
    except FileNotFoundError as error:
        raise ended(f"{error.filename} is missing: the demo plays the examples") from None


def _played(requests: "list[Request]", *, simulated: bool, log: Path, console: "Console") -> "Report":
    from worker.devtools.demo import play as demo
    from worker.devtools.demo.demo_output import progress_bar
    from worker.devtools.devstack import DevstackError

    bar, show = progress_bar(console, len(requests))

    def listen(now: demo.Progress) -> None:
        if signals:
            raise _InterruptedError
        show(now)

    try:
        with noted_signals() as signals, bar:
            return demo.play(requests, simulated=simulated, log=log, listen=listen)
    except (demo.DemoError, DevstackError) as error:
        raise ended(f"The demo failed: {error}{_log_hint(log)}") from None
    except _InterruptedError:
        shutil.rmtree(log.parent)
        raise ended("Interrupted; everything that was started is stopped.", INTERRUPTED) from None


def _log_hint(log: Path) -> str:
    """The place of the log. An empty log is removed."""
    if log.exists() and log.stat().st_size:
        return f"\nThe worker's log: {log}"
    shutil.rmtree(log.parent)
    return ""
