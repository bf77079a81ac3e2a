"""Results of a consumer group, as steps: each at least once, and none lost with its reader."""

import logging
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self, cast

from pydantic import PrivateAttr

from api_contracts.client.effects import Ask, ClosedError, Emit, Look, Notice, Steps, Wait
from api_contracts.generation import GenerationResult
from api_contracts.queues import STREAMS, UNREADABLE_STREAM, result_stream
from api_contracts.violations import ContractViolation

ABANDONED_S: Final = 60.0
"""A result read this long ago and never acknowledged belongs to a consumer that is gone."""

UNREADABLE_KEPT: Final = 10_000
LEFT_BEHIND: Final = "left-behind"
"""The consumer that holds what readers gave back; nobody reads under this name."""

PAGE: Final = 10
BLOCK_S: Final = 1.0
LONG_S: Final = 3600

_log: Final = logging.getLogger(__name__)

Fields = Mapping[bytes, bytes]
Entry = tuple[bytes, Fields]


class Received(GenerationResult):
    """A result that was read as a consumer group, and the way to acknowledge it."""

    _receipt: "Receipt" = PrivateAttr()

    @classmethod
    def of(cls, fields: Fields, receipt: "Receipt") -> Self:
        """Raises ContractViolation."""
        received = cls.from_entry(fields)
        received._receipt = receipt  # noqa: SLF001  # of the class that this method belongs to
        return received

    @property
    def receipt(self) -> "Receipt":
        """The place of its entry."""
        return self._receipt


@dataclass(eq=False, slots=True)
class HandedOut:
    """Results that a reader holds and has not acknowledged: at most `limit`."""

    limit: int
    room: Notice = field(default_factory=Notice)
    entries: set[tuple[int, bytes]] = field(default_factory=set[tuple[int, bytes]])

    @property
    def free(self) -> int:
        return self.limit - len(self.entries)

    def take_back(self, cell: int, entry_id: bytes) -> None:
        self.entries.discard((cell, entry_id))
        self.room.tell()


@dataclass(frozen=True, slots=True)
class Receipt:
    """The place of a result: cell, stream and entry; and its reader."""

    cell: int
    stream: str
    group: str
    entry_id: bytes
    held: HandedOut | None


def acknowledge(result: GenerationResult) -> Steps[None]:
    """Tells Redis that a received result is done with, and makes room for another. May be repeated."""
    if not isinstance(result, Received):
        raise TypeError("acknowledge() takes a result that results() yielded")
    receipt = result.receipt
    yield Ask((("XACK", receipt.stream, receipt.group, receipt.entry_id),), receipt.cell)
    if receipt.held:
        receipt.held.take_back(receipt.cell, receipt.entry_id)


def drop(reply_to: str, cells: int) -> Steps[None]:
    stream = result_stream(reply_to)
    for cell in range(cells):
        yield Ask((("DEL", stream), ("SREM", STREAMS, stream)), cell)


@dataclass(slots=True)
class Page:
    """Entries of one cell, in the order in which they are handed out."""

    cell: int = 0
    entries: list[Entry] = field(default_factory=list[Entry])
    read_at: float = field(default_factory=time.monotonic)


@dataclass(slots=True, kw_only=True)
class Reader:
    """One consumer of a group, in one cell or in several."""

    stream: str
    group: str
    consumer: str | None = None
    cells: int = 1
    idle_s: float | None = None
    take_over: bool = False
    """Whether what an earlier reader left is claimed at once."""
    held: HandedOut | None = None
    """None where each result is acknowledged as the next one is wanted."""
    abandoned_s: float = ABANDONED_S
    block_s: float = BLOCK_S
    _name: str = ""
    _quiet_since: float = 0.0
    _page: Page = field(default_factory=Page)
    _claim_at: dict[int, float] = field(default_factory=dict[int, float])
    _inherited: set[int] = field(default_factory=set[int])
    """Cells where all that an earlier reader left has been claimed."""

    def results(self) -> Steps[None]:
        """Emits each result. Ends after `idle_s` without any, or when it is closed."""
        self._name = self.consumer or f"client-{uuid.uuid4().hex[:12]}"
        yield from self._make_groups()
        try:
            yield from self._read()
        except ClosedError:
            yield from self._give_back()
        yield from self._leave()

    def _read(self) -> Steps[None]:
        self._quiet_since, news, found = time.monotonic(), Notice(), 1
        while self.idle_s is None or time.monotonic() - self._quiet_since < self.idle_s:
            listening = self.cells > 1 and not found
            if listening:
                yield from self._listen(news)
            found = 0
            for cell in range(self.cells):
                yield from self._wait_for_room()
                self._page = yield from self._next_page(cell)
                found += len(self._page.entries)
                yield from self._hand_out(self._page)
            if found:
                self._quiet_since = time.monotonic()
            elif listening:
                yield Wait(news, self._block_s)

    @property
    def _block_s(self) -> float:
        return self.block_s if self.idle_s is None else max(0.001, min(self.block_s, self.idle_s))

    def _make_groups(self) -> Steps[None]:
        make = ("XGROUP", "CREATE", self.stream, self.group, "0", "MKSTREAM")
        for cell in range(self.cells):
            (reply,) = yield Ask((make,), cell, errors_as_replies=True)
            if isinstance(reply, Exception) and "BUSYGROUP" not in str(reply):
                raise reply

    def _listen(self, news: Notice) -> Steps[None]:
        """The lengths of the streams: Redis pushes what was read. What came before this is read after it."""
        news.heard()
        for cell in range(self.cells):
            yield Look(news, (("XLEN", self.stream),), cell)

    def _wait_for_room(self) -> Steps[None]:
        while self.held and self.held.free <= 0:
            self.held.room.heard()
            if self.held.free <= 0:
                yield Wait(self.held.room, LONG_S)
            self._quiet_since = time.monotonic()

    def _next_page(self, cell: int) -> Steps[Page]:
        """Entries that others abandoned, else new ones."""
        count = min(PAGE, self.held.free) if self.held else PAGE
        if self._claim_at.get(cell, 0) <= time.monotonic():
            claimed = yield from self._claim(cell, count)
            if claimed:
                return Page(cell, claimed)
            self._claim_at[cell] = time.monotonic() + BLOCK_S
            self._inherited.add(cell)
        block = () if self.cells > 1 else ("BLOCK", round(self._block_s * 1000))
        read = ("XREADGROUP", "GROUP", self.group, self._name, "COUNT", count, *block, "STREAMS", self.stream, ">")
        (reply,) = yield Ask((read,), cell)
        return Page(cell, entries_of(reply))

    def _claim(self, cell: int, count: int) -> Steps[list[Entry]]:
        idle_ms = 0 if self.take_over and cell not in self._inherited else round(self.abandoned_s * 1000)
        claim = ("XAUTOCLAIM", self.stream, self.group, self._name, idle_ms, "0-0", "COUNT", count)
        ((_, abandoned, *_),) = yield Ask((claim,), cell)
        return [entry for entry in map(entry_of, abandoned) if entry[1]]

    def _hand_out(self, page: Page) -> Steps[None]:
        read = len(page.entries)
        while page.entries:
            is_old = time.monotonic() - page.read_at > self.abandoned_s / 2
            if is_old and len(page.entries) < read:  # the reader is slow, and others may be quicker
                yield from self._give_back()
                return
            entry_id, fields = page.entries.pop(0)
            acknowledge = Ask((("XACK", self.stream, self.group, entry_id),), page.cell)
            try:
                receipt = Receipt(page.cell, self.stream, self.group, entry_id, self.held)
                result = Received.of(fields, receipt)
            except ContractViolation as broken:
                yield from self._set_aside(page.cell, entry_id, fields, str(broken))
                yield acknowledge
                continue
            if self.held:
                self.held.entries.add((page.cell, entry_id))
            yield Emit(result)
            if not self.held:
                yield acknowledge

    def _set_aside(self, cell: int, entry_id: bytes, fields: Fields, reason: str) -> Steps[None]:
        _log.error("unreadable result %s in %s, kept in %s", entry_id.decode(), self.stream, UNREADABLE_STREAM)
        origin = {"stream": self.stream, "group": self.group, "entry": entry_id, "reason": reason[:500]}
        written = [part for pair in {**fields, **origin}.items() for part in pair]
        yield Ask((("XADD", UNREADABLE_STREAM, "MAXLEN", "~", UNREADABLE_KEPT, "*", *written),), cell)

    def _give_back(self) -> Steps[None]:
        """Leaves the entries that were read and not handed out to others at once, as if they had waited for long."""
        left, self._page.entries = [entry_id for entry_id, _ in self._page.entries], []
        if left:
            claim = ("XCLAIM", self.stream, self.group, LEFT_BEHIND, 0, *left, "IDLE", LONG_S * 1000, "JUSTID")
            yield Ask((claim,), self._page.cell)

    def _leave(self) -> Steps[None]:
        """Removes a consumer whose name was made up; what is pending under it stays pending, for a minute."""
        for cell in range(self.cells if not self.consumer else 0):
            while True:
                (pending,) = yield Ask((("XPENDING", self.stream, self.group, "-", "+", 100, self._name),), cell)
                if not pending:
                    break
                ids = [entry_id for entry_id, *_ in pending]
                yield Ask((("XCLAIM", self.stream, self.group, LEFT_BEHIND, 0, *ids, "JUSTID"),), cell)
            yield Ask((("XGROUP", "DELCONSUMER", self.stream, self.group, self._name),), cell)


def entries_of(reply: Any) -> list[Entry]:
    """Of the one stream that was asked for: Redis answers a list in RESP2, a mapping in RESP3, nothing in both."""
    if not reply:
        return []
    if isinstance(reply, dict):
        entries: Any = next(iter(cast("dict[Any, Any]", reply).values()))
    else:
        entries = reply[0][1]
    return [entry_of(entry) for entry in entries]


def entry_of(entry: Any) -> Entry:
    """An entry id and its fields."""
    entry_id, pairs = entry
    return entry_id, dict(zip(pairs[::2], pairs[1::2], strict=True)) if pairs else {}
