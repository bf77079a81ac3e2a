"""Runs `responses-worker` as people run it: a process with an environment, output and an exit code."""

import os
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from typer.testing import CliRunner

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
    done = subprocess.run(
        [sys.executable, "-m", "worker", *arguments],
        env=environment(**settings),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=_LONGEST_S,
        check=False,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


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
