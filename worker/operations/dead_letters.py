"""Dead letters: messages that could not be read, that killed workers, or whose keys were in the way.

They wait in a stream until an operator replays or drops them, or until age and number remove them (30 days,
100,000). A message holds a prompt: only `content` returns one, everything else returns facts.

**A replay** is one script: the message goes to the *back* of its lane, its id runs anew with no attempts and no
crashes behind it, and the letter is gone. To the back, because whatever killed workers once must not stand before
everybody's work, and because thousands of letters are no reason to let callers wait. The message itself is
untouched: priority and id stay, and so does its deadline, past which the answer is `deadline_exceeded`. Most letters
are older than that when somebody looks at them, so a replay may give the request new time instead.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any, Final, NamedTuple, TypeVar

from api_contracts.queues import DEAD_STREAM, lane_list
from worker.queue.commands import MARKER_MS
from worker.queue.messages import Unreadable, decode
from worker.storage import keys
from worker.storage.commands import Argument, Command, Script
from worker.storage.keys import Keys
from worker.storage.replies import records
from worker.storage.scripts import call_blocking

R = TypeVar("R")

PAGE: Final = 500


class DeadLetter(NamedTuple):
    """The facts of a dead letter without its content; ids are empty where none could be read."""

    entry_id: str
    lane: str
    reason: str
    tenant: str
    request_id: str
    size: int
    """Of the message, in bytes."""

    @property
    def died_at_ms(self) -> int:
        """Server time; a stream's ids begin with it."""
        return int(self.entry_id.partition("-")[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The dead letters that are meant; nothing set means all."""

    lane: str | None = None
    reason: str | None = None
    """Any part of the reason, in any case."""
    tenant: str | None = None
    older_than: timedelta | None = None
    newer_than: timedelta | None = None

    def includes(self, letter: DeadLetter) -> bool:
        """Whether all but the age fits; the stream itself is asked for that."""
        return (
            self.lane in (None, letter.lane)
            and self.tenant in (None, letter.tenant)
            and (self.reason or "").casefold() in letter.reason.casefold()
        )

    def newest(self, now_ms: int) -> str:
        return "+" if self.older_than is None else str(_ago(now_ms, self.older_than))

    def oldest(self, now_ms: int) -> str:
        return "-" if self.newer_than is None else str(_ago(now_ms, self.newer_than))


class Replay(StrEnum):
    """The effect of a replay: only with REPLAYED did anything change."""

    REPLAYED = "REPLAYED"
    GONE = "GONE"
    """There is no such letter, or not any more."""
    UNDER_WAY = "UNDER_WAY"
    """The id was enqueued again and is not answered yet; this message would be dropped as its duplicate."""
    ANSWERED = "ANSWERED"
    """The id was enqueued again and got an answer, which is paid for."""
    BLOCKED = "BLOCKED"
    """The key of its request holds something that is no hash: it must go first."""
    NO_LANE = "NO_LANE"
    """The entry was not written by a worker."""


_letters = records(DeadLetter, after=1)
LETTERS: Final = Command(
    name="page",
    keys=("dead",),
    args={"newest": str, "oldest": str, "limit": int},
    reply=lambda page: (page[0].decode(), _letters(page)),
    even_when_full=True,
)
REPLAY: Final = Command(
    name="replay",
    keys=("dead", "list"),
    optional=("request", "deltas"),
    args={"id": str, "lane": str, "fingerprint": str, "within_ms": int | None},
    reply=lambda reply: Replay(reply.decode()),
)
DEAD_LETTERS: Final = Script.load(
    "queue/lua/ledger.lua", "queue/lua/dead_letters.lua", commands=(LETTERS, REPLAY), MARKER_MS=MARKER_MS
)


class DeadLetters:
    """The stream of dead letters behind one blocking client. Every method raises redis.RedisError."""

    def __init__(self, redis: Any) -> None:
        self._redis = redis

    def count(self) -> int:
        return int(self._redis.xlen(DEAD_STREAM))

    def find(self, selection: Selection) -> Iterator[DeadLetter]:
        """The letters meant, newest first, read in pages of bounded size."""
        seconds, micros = self._redis.time()
        now_ms = seconds * 1000 + micros // 1000
        at, oldest = selection.newest(now_ms), selection.oldest(now_ms)
        while at:
            at, letters = self._call(LETTERS, newest=at, oldest=oldest, limit=PAGE)
            yield from filter(selection.includes, letters)

    def get(self, entry_id: str) -> DeadLetter | None:
        """One letter's facts; None where there is none of this id."""
        _, letters = self._call(LETTERS, newest=entry_id, oldest=entry_id, limit=1)
        return letters[0] if letters else None

    def content(self, entry_id: str) -> bytes | None:
        """The message as its producer wrote it, prompt and all."""
        entry = self._entry(entry_id)
        return None if entry is None else entry.get(b"message", b"")

    def replay(self, entry_id: str, *, within: timedelta | None = None) -> Replay:
        """Sends one message back to its lane and lets its id run anew; safe to repeat when the reply was lost.

        `within`, if given, is how long from now an answer is useful, whatever the message says.
        """
        entry = self._entry(entry_id)
        if entry is None:
            return Replay.GONE
        lane, tenant, request_id = (
            entry.get(name, b"").decode(errors="replace") for name in (b"lane", b"tenant", b"request_id")
        )
        if not lane:
            return Replay.NO_LANE
        raw = entry.get(b"message", b"")
        message = decode(raw, max_body=len(raw))
        return self._call(
            REPLAY,
            keys.waiting_list(lane_list(lane, _priority(raw)))
            | (keys.request(tenant, request_id) if request_id else {}),
            id=entry_id,
            lane=lane,
            fingerprint="" if isinstance(message, Unreadable) else message.fingerprint,
            within_ms=None if within is None else round(within.total_seconds() * 1000),
        )

    def drop(self, entry_ids: Iterable[str]) -> int:
        """Removes letters for good, a page at a time; returns how many there were."""
        ids = list(entry_ids)
        pages = (ids[start : start + PAGE] for start in range(0, len(ids), PAGE))
        return sum(int(self._redis.xdel(DEAD_STREAM, *page)) for page in pages)

    def _entry(self, entry_id: str) -> dict[bytes, bytes] | None:
        found = self._redis.xrange(DEAD_STREAM, entry_id, entry_id)
        return found[0][1] if found else None

    def _call(self, command: Command[R], names: Keys | None = None, **args: Argument) -> R:
        return call_blocking(self._redis, DEAD_LETTERS, command, keys.FLEET | (names or {}), **args)


def _priority(raw: bytes) -> int:
    """Of the message, as Celery sorts it into its sub-lists; 0, the highest, where it cannot be read."""
    try:
        return int(json.loads(raw)["properties"]["priority"])
    except (ValueError, TypeError, KeyError, OverflowError):
        return 0


def _ago(now_ms: int, age: timedelta) -> int:
    return max(0, now_ms - round(age.total_seconds() * 1000))
