"""Admission queues of one process on a real budget, with a count of the script calls they make."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable
from contextlib import asynccontextmanager
from typing import Any

from support.admission_parts import ask, reservations
from support.ledger_parts import RecordingRunner
from worker.admission.admission_queue import AdmissionQueues
from worker.admission.client import Admission
from worker.admission.evidence import Evidence
from worker.admission.grants import Limits, NotAdmitted, Reservation
from worker.admission.places import Places
from worker.storage.connection import RedisTarget

FAST = 60_000
FOREVER = float("inf")
WEIGHTS = {"interactive": 4, "batch": 1}


class CountingRunner(RecordingRunner):
    """Counts script calls by command, and rings at each."""

    counts: Counter[str]
    news: asyncio.Event

    async def called(self, command: str, times: int) -> None:
        """Returns when this command was called so many times."""
        while self.counts[command] < times:
            self.news.clear()
            await self.news.wait()

    def calling(self, command: str) -> None:
        self.counts[command] += 1
        self.news.set()


class Rooms:
    """One process' rooms on a real budget."""

    def __init__(self, valkey: Any, admission: Admission, runner: CountingRunner, places: Places) -> None:
        self.redis, self.admission, self.runner = valkey, admission, runner
        self.rooms = AdmissionQueues.of(admission, WEIGHTS, places)

    def enter(
        self,
        token: str,
        *,
        lane: str = "interactive",
        tokens: int = 10,
        within_s: float = 30.0,
        patience_s: float = FOREVER,
        ends_s: float | None = None,
        failures: int = 0,
        enqueued_s_ago: float = 0.0,
    ) -> "asyncio.Task[Reservation | NotAdmitted]":
        now_ms = time.time_ns() // 1_000_000
        asked = ask(
            token,
            tokens,
            now_ms=now_ms,
            enqueued_at_ms=now_ms - round(enqueued_s_ago * 1000),
            ends_ms=now_ms + round((within_s if ends_s is None else ends_s) * 1000),
            patience_ms=patience_s * 1000,
            failures=failures,
        )
        return asyncio.create_task(self.rooms.admit(lane, asked, within_s=within_s), name=token)

    async def waiting(self, token: str) -> "asyncio.Task[Reservation | NotAdmitted]":
        """A request that stands in its room by now."""
        empty = self.rooms.vacancies("interactive")
        task = self.enter(token)
        async with asyncio.timeout(5):
            while self.rooms.vacancies("interactive") >= empty:  # noqa: ASYNC110  # nothing announces it
                await asyncio.sleep(0)
        return task

    def permits(self) -> int:
        return self.redis.zcard("responses:permits:default")

    async def call(self) -> Reservation:
        """A call of another process."""
        return await granted(self.admission, tenant="other")

    async def pause(self, seconds: float) -> None:
        """Two tenants' calls were told to wait."""
        for number in range(2):
            call = await granted(self.admission, tenant=f"other-{number}")
            said = Evidence(verdict="throttled", used_tokens=1, retry_after_s=seconds)
            await self.admission.tell(call, said)

    async def shut(self, *, probe_s: float = 60) -> None:
        """A dead key, confirmed; the next probe comes in `probe_s`."""
        self.admission.probe_ms = round(probe_s * 1000)
        for number in range(3):
            now_ms = time.time_ns() // 1_000_000
            dead = ask(f"dead-{number}", tenant=f"other-{number}", now_ms=now_ms)
            self.redis.zadd("responses:permits:default", {dead.token: now_ms})
            said = Evidence(verdict="authentication", used_tokens=1, code="authentication_failed")
            await self.admission.tell(Reservation(dead.token, 1, 0, now_ms + 60_000, "", number + 1, dead), said)


async def granted(admission: Admission, tenant: str) -> Reservation:
    """A call of another process."""
    token = f"{tenant}-{time.monotonic_ns()}"
    asked = ask(token, tenant=tenant, now_ms=time.time_ns() // 1_000_000)
    (reservation,) = reservations(admission, [asked], await admission.grant("interactive", 1, [asked]))
    return reservation


@asynccontextmanager
async def opened(
    valkey: Any, url: str, *, pumping: bool = True, places: int = 1_000, **limits: Any
) -> AsyncGenerator[Rooms]:
    runner = CountingRunner(RedisTarget.parse(url).async_client())
    runner.counts, runner.news = Counter(), asyncio.Event()
    admission = Admission(
        runner=runner, limits=Limits(**limits), lease_ms=15_000, longest_pause_ms=900_000, probe_ms=60_000
    )
    rooms = Rooms(valkey, admission, runner, Places(places))
    pump = asyncio.create_task(rooms.rooms.pump()) if pumping else None
    try:
        yield rooms
        assert pump is None or not pump.done(), "the pump must survive everything"
    finally:
        if pump is not None:
            pump.cancel()
            await asyncio.gather(pump, return_exceptions=True)
        await runner.aclose()


async def soon(awaitable: "Awaitable[Reservation | NotAdmitted]", within_s: float = 5.0) -> Reservation | NotAdmitted:
    async with asyncio.timeout(within_s):
        return await awaitable
