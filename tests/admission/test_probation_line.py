"""A line of prompts that always fail, of one tenant, does not hold up those who stand behind it."""

import asyncio
import time
from typing import Final

import redis
from support.admission_parts import ask
from support.admission_queue_parts import Rooms, opened

from worker.admission.evidence import Evidence
from worker.admission.grants import NotAdmitted

FAILING: Final = 30
GOOD: Final = 10
AT_ONCE: Final = 5
"""Half a second of ten a second: the burst at the start."""


async def called(rooms: Rooms, tenant: str, number: int, starts: list[str]) -> None:
    """One request until its first call is over; one that makes room does not come back."""
    now_ms = time.time_ns() // 1_000_000
    one = ask(f"{tenant}-{number}", now_ms=now_ms, tenant=tenant)
    admitted = await rooms.rooms.admit("interactive", one, within_s=30)
    if isinstance(admitted, NotAdmitted):
        return
    starts.append(tenant)
    verdict = "failed" if tenant == "evil" else "ok"
    await rooms.admission.tell(admitted, Evidence(verdict=verdict, used_tokens=1, code="upstream_error"))
    rooms.rooms.leave(one.token)


async def test_the_line_opens_as_soon_as_it_is_known(valkey: redis.Redis, redis_url: str) -> None:
    starts: list[str] = []
    async with opened(valkey, redis_url, requests_per_minute=600) as rooms, asyncio.timeout(10):
        line = [("evil", number) for number in range(FAILING)] + [("good", number) for number in range(GOOD)]
        await asyncio.gather(*(called(rooms, *one, starts) for one in line))

    assert starts.count("good") == GOOD
    assert starts.index("good") <= AT_ONCE + 2
    assert starts[AT_ONCE + 2 :].count("evil") <= 1, "one for each ten of the others"
