"""The way out for kept messages of failed requests, as `redrive.lua` implements it: back to a lane, or dropped by age.

`complete` keeps a message where its request ended in a retryable failure (`failed_bodies.lua`): at most 100,000 of
them, and 128 MiB. It goes when its id runs again, whoever enqueued that.
"""

from enum import StrEnum
from typing import Final

from worker.queue.commands import MARKER_MS
from worker.storage.commands import Command, Script
from worker.storage.keys import FAILED
from worker.storage.replies import number


class Redrive(StrEnum):
    """The effect of a redrive: only with REDRIVEN did anything change."""

    REDRIVEN = "REDRIVEN"
    GONE = "GONE"
    """The message is kept no more: its id runs again already, or its time is over."""
    CHANGED = "CHANGED"
    """The id was answered or enqueued since."""


EXPIRE_FAILED: Final = Command(
    name="expire_failed", args={"kept_ms": int, "limit": int}, reply=number, even_when_full=True
)
REDRIVE: Final = Command(
    name="redrive",
    keys=("list", "request", "deltas"),
    args={"id": str, "lane": str, "within_ms": int},
    reply=lambda reply: Redrive(reply.decode()),
)
FAILED_BODIES: Final = Script.load(
    "queue/lua/ledger.lua",
    "queue/lua/failed_bodies.lua",
    "queue/lua/redrive.lua",
    commands=(EXPIRE_FAILED, REDRIVE),
    MARKER_MS=MARKER_MS,
    **FAILED,
)
