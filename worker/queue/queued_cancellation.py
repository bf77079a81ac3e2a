"""Finds cancelled messages deep in a lane that stands still: paused, behind a shut gate, or every worker full.

A worker heeds cancellations of the requests it holds, and it holds no more than it can start soon. A message deeper in
the lane would be answered only once the lane moves again. So while the message next in line stays the same, the fleet
reads the lane a page at a time, each page in one process, and takes out the cancelled messages. Each is then a delivery
like any other: `claim` says CANCELLED, and it is answered once. In a lane that moves, only the next message is read.
"""

import asyncio
import base64
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final

from api_contracts.queues import CANCEL, cancel_key, lane_lists
from worker.queue.claims import Delivery
from worker.queue.commands import MARKER_MS
from worker.queue.events import QueueEvents
from worker.queue.leases import LEASE_MS
from worker.queue.ledger import Ledger
from worker.queue.messages import Unreadable, decode
from worker.storage import keys
from worker.storage.commands import Command, Row, Rows, Script
from worker.storage.scripts import ScriptError, ScriptRunner

Found = tuple[int, bytes]
"""A message and its place in line, from 1."""

PAGES: Final = Command(
    name="page",
    args={"interval_ms": int, "count": int},
    rows=Rows("lists", ("list", "sweeper")),
    reply=lambda pages: [(name.decode(), list(zip(page[::2], page[1::2], strict=True))) for name, page in pages],
    even_when_full=True,
    large_reply=True,
)
TAKE: Final = Command(
    name="take",
    keys=("inflight", "leases", "claims", "list", "sweeper"),
    args={"lease_ms": int},
    rows=Rows("found", args={"token": str, "place": int, "message": bytes}),
    reply=lambda tokens: {token.decode() for token in tokens},
    even_when_full=True,
)


def spellings(name: str) -> str:
    """A JSON name as it looks in base64, for each of the three places in a group of bytes where it can begin.

    Each is `skip:text`: so many characters into a group of four, these characters. Those that the bytes before or after
    the name share are left out.
    """
    written = f'"{name}"'.encode()
    found: list[str] = []
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + written).decode()
        skip = -(-before * 8 // 6)
        found.append(f"{skip}:{encoded[skip : (before + len(written)) * 8 // 6]}")
    return " ".join(found)


QUEUED_CANCELLATION: Final = Script.load(
    "queue/lua/ledger.lua",
    "queue/lua/cancel_marks.lua",
    "queue/lua/queued_cancellation.lua",
    commands=(PAGES, TAKE),
    MARKER_MS=MARKER_MS,
    CANCEL=CANCEL,
    REQUEST_ID_SPELLED=spellings("request_id"),
    TENANT_SPELLED=spellings("tenant"),
)

INTERVAL_S: Final = 0.5
PAGE: Final = 500
"""Messages looked at per interval and list."""

DECODED_AT_ONCE: Final = 50
"""Two milliseconds' worth, between which calls go on."""


@dataclass(frozen=True, slots=True)
class QueuedCancellation:
    """Takes cancelled messages out of lanes that stand still, while `willing()`, and `start`s each."""

    runner: ScriptRunner
    ledger: Ledger
    lanes: Callable[[], Collection[str]]
    max_body: int
    willing: Callable[[], bool]
    start: Callable[[Delivery], None]
    events: QueueEvents

    async def run(self) -> None:
        """Sweeps until cancelled."""
        while True:
            await asyncio.sleep(INTERVAL_S)
            lists = {name: lane for lane in self.lanes() for name in lane_lists(lane)}
            if not lists or not self.willing():
                continue
            try:
                for name, page in await self._pages(lists):
                    await self._take(lists[name], name, await self._cancelled(page))
            except ScriptError as error:
                self.events.script_refused(error)

    async def _pages(self, lists: Collection[str]) -> list[tuple[str, list[Found]]]:
        rows = [Row(keys.waiting_list(name), {}) for name in lists]
        return await self.runner.call(
            QUEUED_CANCELLATION, PAGES, {}, rows, interval_ms=round(INTERVAL_S * 1000), count=PAGE
        )

    async def _cancelled(self, page: Sequence[Found]) -> list[Found]:
        """Those that were cancelled by request id or by Celery task id."""
        marked: dict[str, Found] = {}
        for number, found in enumerate(page, 1):
            marked |= dict.fromkeys(self._cancel_keys(found[1]), found)
            if number % DECODED_AT_ONCE == 0:
                await asyncio.sleep(0)
        hits = await self.ledger.cancelled(list(marked))
        return list(dict.fromkeys(found for found, hit in zip(marked.values(), hits, strict=True) if hit))

    def _cancel_keys(self, raw: bytes) -> list[str]:
        message = decode(raw, max_body=self.max_body)
        if isinstance(message, Unreadable):
            return []
        return [cancel_key(message.tenant, message.request_id), cancel_key("", message.task_id)]

    async def _take(self, lane: str, name: str, cancelled: Sequence[Found]) -> None:
        """Starts those that nobody else took since they were found."""
        if not cancelled:
            return
        sweep_id, names = self.ledger.fresh_id(), keys.lane(lane) | keys.waiting_list(name)
        asked = {f"{sweep_id}.{lane}.{number}": found for number, found in enumerate(cancelled, 1)}
        rows = [Row({}, {"token": token, "place": place, "message": raw}) for token, (place, raw) in asked.items()]
        taken = await self.runner.call(QUEUED_CANCELLATION, TAKE, names, rows, lease_ms=LEASE_MS)
        for token, (_, raw) in asked.items():
            if token in taken:
                self.start(Delivery(token, lane, raw))
