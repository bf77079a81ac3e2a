"""Commands on a real terminal, and texts that try to take it over."""

import contextlib
import os
import pty
import subprocess
import sys
from typing import Final

from support.command_line import environment

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


def hidden(written: str) -> set[str]:
    """The parts of a text that are not seen on a terminal."""
    return {char for char in written if not char.isprintable() and char not in "\n\t"}
