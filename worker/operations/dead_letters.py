"""Dead letters: messages that could not be read, that killed workers, or whose keys were in the way.

They wait in a stream until an operator replays or drops them, or until age and number remove them (30 days,
100,000). A message holds a prompt: only `content` returns one, everything else returns facts.

**A replay** is one script: the message goes to the *back* of its lane, its id runs anew with no attempts and no
crashes behind it, and the letter is gone. To the back, because whatever killed workers once must not stand before
everybody's work, and because thousands of letters are no reason to let callers wait. The message itself is
untouched: priority and id stay, and so does its deadline, past which the answer is `deadline_exceeded`. Most letters
are older than that when somebody looks at them, so a replay may give the request new time instead.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any, Final

from api_contracts.queues import DEAD_STREAM
from worker.queue.messages import Unreadable, decode
from worker.storage.scripts import Script

DEAD_LETTERS: Final = Script.load("queue/lua/dead_letters.lua", even_when_full=frozenset({"page"}))

PAGE: Final = 500
_FACTS: Final = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """What is known of a dead letter without its content; ids are empty where none could be read."""

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
    """Which dead letters are meant; nothing set means all."""

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
    """What a replay did: only with REPLAYED did anything change."""

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
            cursor, *facts = self._call("page", at, oldest, PAGE)
            rows = zip(*[iter(facts)] * _FACTS, strict=True)
            yield from filter(selection.includes, map(_letter, rows))
            at = cursor.decode()

    def get(self, entry_id: str) -> DeadLetter | None:
        """One letter's facts; None where there is none of this id."""
        _, *facts = self._call("page", entry_id, entry_id, 1)
        return _letter(facts) if facts else None

    def content(self, entry_id: str) -> bytes | None:
        """The message as its producer wrote it, prompt and all."""
        found = self._redis.xrange(DEAD_STREAM, entry_id, entry_id)
        return found[0][1].get(b"message", b"") if found else None

    def replay(self, entry_id: str, *, within: timedelta | None = None) -> Replay:
        """Sends one message back to its lane and lets its id run anew; safe to repeat when the reply was lost.

        `within`, if given, is how long from now an answer is useful, whatever the message says.
        """
        if within is None:
            return Replay(self._call("replay", entry_id, "", "").decode())
        raw = self.content(entry_id) or b""
        message = decode(raw, max_body=len(raw))
        fingerprint = "" if isinstance(message, Unreadable) else message.fingerprint
        within_ms = round(within.total_seconds() * 1000)
        return Replay(self._call("replay", entry_id, fingerprint, within_ms).decode())

    def drop(self, entry_ids: Iterable[str]) -> int:
        """Removes letters for good, a page at a time; returns how many there were."""
        ids = list(entry_ids)
        pages = (ids[start : start + PAGE] for start in range(0, len(ids), PAGE))
        return sum(int(self._redis.xdel(DEAD_STREAM, *page)) for page in pages)

    def _call(self, command: str, *arguments: str | int) -> Any:
        return self._redis.eval(DEAD_LETTERS.text_for(command), 0, command, *arguments)


def _letter(row: Iterable[Any]) -> DeadLetter:
    entry_id, lane, reason, tenant, request_id, size = row
    texts = [text.decode(errors="replace") for text in (entry_id, lane, reason, tenant, request_id)]
    return DeadLetter(
        entry_id=texts[0], lane=texts[1], reason=texts[2], tenant=texts[3], request_id=texts[4], size=int(size)
    )


def _ago(now_ms: int, age: timedelta) -> int:
    return max(0, now_ms - round(age.total_seconds() * 1000))
