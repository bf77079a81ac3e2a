"""Handlers for the signals of the operating system.

TERM, INT, QUIT   drain; a second one leaves now, and leases bring back what was held
HUP               drain, however often it comes; ignored where the process was started to ignore it (nohup)
USR1              write the stack of every thread to the log
USR2              nothing
"""

import os
import signal
import sys
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final

from worker.runtime.vitals import stack_of
from worker.telemetry import log

_LEAVING: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


def install(*, drain: Callable[[], None], leaving: Callable[[], bool]) -> None:
    """Sets the handlers; call it on the main thread. `drain` must be safe in a signal handler."""

    def leave(_signal: int, _frame: object) -> None:
        if leaving():
            os._exit(os.EX_SOFTWARE)
        drain()

    for one in _LEAVING:
        signal.signal(one, leave)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda _signal, _frame: drain())
    signal.signal(signal.SIGUSR1, _stack_writer())
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)


def _stack_writer() -> Callable[[int, object], None]:
    """A handler that asks a thread to write: the interrupted thread may hold a lock of the log."""
    asked: SimpleQueue[int] = SimpleQueue()  # its `put` is safe in a signal handler

    def write() -> None:
        while asked.get():
            write_stacks()

    threading.Thread(target=write, name="stacks", daemon=True).start()
    return lambda number, _frame: asked.put(number)


def write_stacks() -> None:
    """One line for each thread: its name and where it stands, innermost last; places only, no values."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident in sys._current_frames():  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # documented, for this
        log("thread.stack", "warning", thread=names.get(ident, str(ident)), stack=stack_of(ident))
