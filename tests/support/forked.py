"""Processes of `python -m worker` that are forked from one which has imported it: a start costs milliseconds of CPU.

A test of what a start itself does uses an interpreter of its own.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

if TYPE_CHECKING:
    from io import TextIOWrapper

_FORKS: Final = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    ["worker.cli", "worker.runtime.celery_app", "worker.runtime.pool", "api_contracts.client", "rich.table"]
)


class Forked:
    """One process, with the names and meanings of `subprocess.Popen`."""

    def __init__(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        *,
        stdin: str | Path = os.devnull,
        stdout: Path,
        stderr: Path,
    ) -> None:
        files = (str(stdin), str(stdout), str(stderr))
        self._process = _FORKS.Process(target=_run, args=(list(arguments), dict(environment), files))
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid
        return self._process.pid

    def poll(self) -> int | None:
        """The exit code, or minus the signal that ended it; None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """The same, waited for. Raises subprocess.TimeoutExpired."""
        self._process.join(timeout)
        if (code := self._process.exitcode) is None:
            raise subprocess.TimeoutExpired("python -m worker", timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _run(arguments: list[str], environment: dict[str, str], files: tuple[str, str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    for number, (path, flags) in enumerate(zip(files, (os.O_RDONLY, _WRITE, _WRITE), strict=True)):
        os.dup2(os.open(path, flags), number)
    sys.stdin = os.fdopen(0, encoding="utf-8")
    for stream in (sys.stdout, sys.stderr):
        cast("TextIOWrapper", stream).reconfigure(write_through=True)
    sys.argv = ["responses-worker", *arguments]
    from worker.__main__ import main  # noqa: PLC0415  # only here

    main()


_WRITE: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT
