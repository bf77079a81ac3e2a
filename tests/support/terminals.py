"""Commands on a real terminal, and texts that try to take it over."""

import contextlib
import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from support.command_line import environment
from support.polling import wait_until

CONTROLS: Final = "".join(map(chr, [*range(1, 9), *range(11, 32), *range(0x7F, 0xA0)]))
"""C0 without tab and line feed, DEL, and C1: each may begin a sequence that a terminal obeys."""
BIDI: Final = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
HOSTILE: Final = f"\x1b]0;owned\x07\x1b[2J\x9b31m[/red][bold]x[/][link=http://evil]{CONTROLS}{BIDI}\u2028 end"
"""Everything at once, and markup that closes what nobody opened."""


def on_terminal(*arguments: str, **settings: str) -> tuple[int, str]:
    """Exit code and all that `responses-worker` wrote to a terminal without colours of its own."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "worker", *arguments],
        env=environment(TERM="dumb", NO_COLOR="1", **settings),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    written = b""
    with contextlib.suppress(OSError):  # how Linux says that the other side is closed
        while piece := os.read(ours, 65536):
            written += piece
    os.close(ours)
    return process.wait(60), written.decode("utf-8", "replace").replace("\r\n", "\n")


_TAKES_THE_TERMINAL: Final = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, "-m", "worker", *sys.argv[1:]])
"""


@dataclass(slots=True)
class Session:
    """A command that owns a terminal; what it writes is kept, escape sequences too."""

    process: "subprocess.Popen[bytes]"
    ours: int
    written: str = field(default="", init=False)

    def reads(self, text: str) -> None:
        """Waits until the terminal was sent this text after the last one that was waited for."""
        wait_until(lambda: text in self._more(), what=repr(text))
        self.written = self.written.partition(text)[2]

    def types(self, keys: str) -> None:
        os.write(self.ours, keys.encode())

    def rest(self) -> str:
        """Everything until the command has ended."""
        self.process.wait(20)
        return self._more()

    def _more(self) -> str:
        with contextlib.suppress(OSError):  # how Linux says that the other side is closed
            while select.select([self.ours], [], [], 0)[0]:
                piece = os.read(self.ours, 65536)
                if not piece:
                    break
                self.written += piece.decode("utf-8", "replace")
        return self.written


@contextmanager
def session(*arguments: str, rows: int = 60, columns: int = 160, **settings: str) -> Generator[Session]:
    """`responses-worker` on a terminal of its own, where Ctrl-C is a key."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    own = environment(TERM="xterm-256color", **settings)
    del own["COLUMNS"]
    process = subprocess.Popen(
        [sys.executable, "-c", _TAKES_THE_TERMINAL, *arguments], env=own, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    try:
        yield Session(process, ours)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def hidden(written: str) -> set[str]:
    """The parts of a text that are not seen on a terminal."""
    return {char for char in written if not char.isprintable() and char not in "\n\t"}
