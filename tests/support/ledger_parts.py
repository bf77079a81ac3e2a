"""A ledger on a real Valkey whose clock the test moves, with readers of every key the ledger keeps."""

import asyncio
import random
import threading
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

import pytest
import redis

from support.movable_clock import MovableClock, on_movable_clock
from worker.queue import leases as leases_module
from worker.queue import ledger as ledger_module
from worker.queue.claims import Claim, Delivery, Lease, Published, WriteOutcome
from worker.queue.commands import DELIVERIES, RELEASE, RETURNS
from worker.queue.failed_bodies import FAILED_BODIES
from worker.queue.ledger import Ledger
from worker.storage.commands import Argument, Command, Row, Script
from worker.storage.connection import RedisTarget
from worker.storage.scripts import ScriptRunner

R = TypeVar("R")
LANES: Final = ("interactive", "batch")
LEASE_MS: Final = 15_000
HOUR_MS: Final = 3_600_000
RESULTS: Final = "responses:results"

PERMANENT: Final = (
    "responses.",
    "responses:inflight:",
    "responses:leases:",
    "responses:claims:",
    "responses:delayed:",
    "responses:parked:",
    "responses:permits:",
    "responses:quota:",
    "responses:times:",
    "responses:results",
    "responses:dead",
    "responses:streams",
    "responses:kept",
    "responses:failed",
    "responses:reclaimer",
)
"""Keys that live without a TTL: their elements have an owner, an age or a count that removes them."""


async def eventually(check: Callable[[], Any]) -> None:
    """Returns once `check` is true, and lets others run until then."""
    async with asyncio.timeout(10):
        while not check():  # noqa: ASYNC110  # Redis sets no event of ours
            await asyncio.sleep(0.002)


class RecordingRunner(ScriptRunner):
    """Remembers the last call of each command, so that a test can make it again as after a lost reply."""

    asked: dict[str, tuple[Any, ...]]

    async def call(  # as the runner's own
        self,
        script: Script,
        command: Command[R],
        keys: Mapping[str, str],
        rows: Sequence[Row] = (),
        groups: Sequence[Row] = (),
        /,
        **args: Argument,
    ) -> R:
        self.asked = {**getattr(self, "asked", {}), command.name: (script, command, keys, rows, groups, args)}
        self.calling(command.name)
        return await ScriptRunner.call(self, script, command, keys, rows, groups, **args)

    def calling(self, command: str) -> None:
        """A call of this command is about to begin."""

    async def repeat(self, command: str) -> Any:
        """The reply to the same call again."""
        script, declared, keys, rows, groups, args = self.asked[command]
        return await ScriptRunner.call(self, script, declared, keys, rows, groups, **args)


def claim_of(request_id: str = "r", **changes: Any) -> Claim:
    """A claim like `Policy` makes, for a request without times of its own; deadline after an hour."""
    plain = Claim(
        tenant="acme",
        request_id=request_id,
        task_id=f"task-{request_id}",
        fingerprint="f",
        enqueued_at_ms=None,
        deadline_ms=None,
        default_deadline_ms=HOUR_MS,
        longest_deadline_ms=7 * 24 * HOUR_MS,
        stream=RESULTS,
    )
    return replace(plain, **changes)


COMPLETED: Final = Published("completed", retryable=False, streamed=False, result=b'{"answer":1}')
FAILED: Final = Published("failed", retryable=False, streamed=False, result=b'{"error":1}')
FAILED_RETRYABLE: Final = Published("failed", retryable=True, streamed=False, result=b'{"error":2}')


@dataclass
class Desk(MovableClock):
    """One worker's ledger, and the same Valkey from outside."""

    runner: RecordingRunner
    ledger: Ledger

    def enqueue(self, *messages: str, lane: str = "interactive", priority: str = "") -> None:
        """As a Celery producer does, the oldest first."""
        for message in messages:
            self.redis.lpush(f"responses.{lane}{priority}", message)

    async def take(self, **quotas: int) -> list[Delivery]:
        return (await self.ledger.pop(quotas or {"interactive": 1})).deliveries

    async def taken(self, message: str = "m", lane: str = "interactive") -> Delivery:
        """A new message, in flight."""
        self.enqueue(message, lane=lane)
        (delivery,) = (await self.ledger.pop({lane: 1})).deliveries
        assert delivery.message == message.encode()
        return delivery

    async def give_back(self, delivery: Delivery) -> WriteOutcome:
        """Returns a delivery that was never claimed to its lane, as the script can."""
        return await self.runner.call(
            RETURNS,
            RELEASE,
            self.ledger._keys(delivery),  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # of a delivery without a claim
            token=delivery.token,
            behind=False,
            throttle_ms=0,
            number=None,
            attempt=b"",
        )

    async def leased(self, request_id: str = "r", **changes: Any) -> Lease:
        """A new message, claimed."""
        lease = await self.ledger.claim(await self.taken(), claim_of(request_id, **changes))
        assert isinstance(lease, Lease)
        return lease

    async def reclaimed(self) -> list[tuple[str, int, int]]:
        """Lets a lease run out while the reclaimer ticks: (token, attempt, crashes) of what went back."""
        rows = [*(await self.ledger.reclaim(LANES)).lost]
        for _ in range(5):
            self.advance(LEASE_MS // 4)
            rows += (await self.ledger.reclaim(LANES)).lost
        return [(row.token, row.attempt, row.crashes) for row in rows]

    def lane(self, lane: str = "interactive", priority: str = "") -> list[str]:
        """The messages that wait in a lane, next one first."""
        return [message.decode() for message in reversed(self.redis.lrange(f"responses.{lane}{priority}", 0, -1))]

    def places(self) -> dict[str, int]:
        """The number of messages in each place; empty when none is left."""
        counts = {"queued": 0, "inflight": 0, "parked": 0}
        for lane in LANES:
            counts["queued"] += sum(self.redis.llen(key) for key in self.redis.scan_iter(f"responses.{lane}*"))
            counts["inflight"] += self.redis.hlen(f"responses:inflight:{lane}")
            counts["parked"] += self.redis.hlen(f"responses:parked:{lane}")
            assert self.redis.zcard(f"responses:leases:{lane}") == self.redis.hlen(f"responses:inflight:{lane}")
            assert self.redis.zcard(f"responses:delayed:{lane}") == self.redis.hlen(f"responses:parked:{lane}")
        return {place: count for place, count in counts.items() if count}

    def results(self, stream: str = RESULTS) -> list[tuple[str, str, bytes]]:
        """Request id, outcome and result of every entry."""
        rows = self.redis.xrange(stream)
        return [(row[b"request_id"].decode(), row[b"outcome"].decode(), row[b"result"]) for _, row in rows]

    def dead(self) -> list[tuple[str, str]]:
        """Reason and message of every dead letter."""
        return [(row[b"reason"].decode(), row[b"message"].decode()) for _, row in self.redis.xrange("responses:dead")]

    def request(self, request_id: str = "r", tenant: str = "acme") -> dict[str, str]:
        flat = self.redis.hgetall(f"responses:request:{tenant}:{request_id}")
        return {name.decode(): value.decode() for name, value in flat.items()}

    def everything(self) -> dict[str, tuple[bytes, int]]:
        """All keys as they are and when they expire, to tell whether a call changed anything."""
        return {key.decode(): (self.redis.dump(key), self.redis.pexpiretime(key)) for key in sorted(self.redis.keys())}

    def leaks(self) -> list[str]:
        """Keys that nothing will ever remove."""
        return [
            key.decode()
            for key in self.redis.scan_iter()
            if key.startswith(b"responses") and self.redis.pttl(key) < 0 and not key.decode().startswith(PERMANENT)
        ]


@asynccontextmanager
async def open_desk(client: Any, url: str) -> AsyncGenerator[Desk]:
    """A desk on an empty server; on the way out nothing may be left that nobody would ever remove."""
    runner = RecordingRunner(RedisTarget.parse(url).async_client())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledger_module, "DELIVERIES", on_movable_clock(DELIVERIES))
        patch.setattr(ledger_module, "RETURNS", on_movable_clock(RETURNS))
        patch.setattr(ledger_module, "FAILED_BODIES", on_movable_clock(FAILED_BODIES))
        patch.setattr(leases_module, "RETURNS", on_movable_clock(RETURNS))
        try:
            desk = Desk(client, runner, Ledger(runner))
            yield desk
            assert desk.leaks() == []
        finally:
            await runner.aclose()


@contextmanager
def connections_being_killed(url: str) -> Generator[Counter[str]]:
    """Kills every other client again and again; counts how many."""
    stop, killed = threading.Event(), Counter[str]()

    def kill() -> None:
        with redis.Redis.from_url(url) as client:  # pyright: ignore[reportUnknownMemberType]  # untyped kwargs
            while not stop.wait(random.uniform(0.005, 0.05)):
                killed["connections"] += int(client.client_kill_filter(_type="normal", skipme=True))  # pyright: ignore[reportArgumentType, reportUnknownMemberType]  # redis-py types both colours as one

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield killed
    finally:
        stop.set()
        thread.join()
