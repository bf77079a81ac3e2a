"""Runs `responses-worker` as people run it: a process with an environment, output and an exit code."""

import os
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from typer.testing import CliRunner

from support.forked import Forked
from worker.cli import cli

ROOT = Path(__file__).parents[2]
_LONGEST_S = 60


@dataclass(frozen=True)
class Ran:
    """The remains of a command."""

    code: int
    out: str
    err: str


def environment(**settings: str) -> dict[str, str]:
    """Ours without settings of a worker, plus `settings`."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("WORKER_", "SENTRY_"))}
    return own | {"COLUMNS": "160"} | settings  # wide enough that no sentence is wrapped


def run(*arguments: str, stdin: str = "", **settings: str) -> Ran:
    """`responses-worker` with these arguments, to its end."""
    with TemporaryDirectory() as directory:
        read, out, err = (Path(directory, name) for name in ("in", "out", "err"))
        read.write_text(stdin)
        process = Forked(arguments, environment(**settings), stdin=read, stdout=out, stderr=err)
        try:
            return Ran(process.wait(_LONGEST_S), out.read_text(), err.read_text())
        finally:
            process.kill()


def called(*arguments: str, stdin: str = "", **settings: str) -> Ran:
    """The same within this process: for the many ways to be refused, without as many interpreters."""
    unset = dict.fromkeys(name for name in os.environ if name.startswith("WORKER_"))
    result = CliRunner().invoke(cli, arguments, input=stdin, env=unset | settings, catch_exceptions=False)
    return Ran(result.exit_code, result.stdout, result.stderr)


@contextmanager
def started(*command: str, **settings: str) -> "Generator[subprocess.Popen[str]]":
    """A Python process with pipes, unbuffered; killed if it still runs at the end."""
    process = subprocess.Popen(
        [sys.executable, "-u", *command],
        env=environment(**settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def next_line(process: "subprocess.Popen[str]") -> str:
    """The next line on its stdout, waited for."""
    assert process.stdout
    return process.stdout.readline()
