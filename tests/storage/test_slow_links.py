"""Slow and far links: silence is timed and not the reply, and what is small waits for nothing large."""

import asyncio
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest
from support.heard import Heard
from support.links import SlowLink
from support.redis_parts import stopped
from test_scripts import COUNT, TALLY

from worker.devtools.devstack import EmbeddedValkey
from worker.storage.commands import Command, Script
from worker.storage.connection import RedisTarget
from worker.storage.scripts import ScriptRunner

WITHIN_S: Final = 0.8
MIB: Final = 1024 * 1024

FETCH: Final = Command(name="fetch", args={"size": int}, reply=bytes, large_reply=True)
SMALL: Final = Command(name="small", reply=bytes)
STORE: Final = Command(name="store", args={"text": bytes}, reply=int)
SIZES: Final = Script.of(
    """
local commands = {}
-- ARGV size
function commands.fetch(_, arg)
  return string.rep('x', arg.size)
end
function commands.small()
  return 'x'
end
-- ARGV text
function commands.store(_, arg)
  return redis.call('APPEND', 'stored', arg.text)
end
""",
    commands=(FETCH, SMALL, STORE),
)


@pytest.fixture
def link(valkey_server: EmbeddedValkey, redis_url: str) -> Generator[SlowLink]:
    assert redis_url == valkey_server.url
    with SlowLink(valkey_server.port, mbit_per_s=16, round_trip_ms=4) as link:
        yield link


@asynccontextmanager
async def running(link: SlowLink, troubles: list[str | None]) -> AsyncGenerator[ScriptRunner]:
    runner = ScriptRunner(RedisTarget.parse(link.url).async_client(), Heard(troubles), within_s=WITHIN_S)
    await runner.call(SIZES, SMALL, {})
    yield runner
    await runner.aclose()


@pytest.mark.parametrize("mbit_per_s", [24])
async def test_a_reply_that_keeps_arriving_is_waited_for(link: SlowLink, mbit_per_s: float) -> None:
    """It takes several times as long as a peer may be silent, and it is asked for once."""
    link.tune(mbit_per_s=mbit_per_s, round_trip_ms=4)
    troubles: list[str | None] = []
    size = round(2.5 * WITHIN_S * mbit_per_s * 1e6 / 8)
    async with running(link, troubles) as runner:
        assert len(await runner.call(SIZES, FETCH, {}, size=size)) == size

    assert troubles == []
    assert link.carried["down"] < 1.1 * size


@pytest.mark.parametrize("mbit_per_s", [8])
async def test_a_call_that_keeps_leaving_is_waited_for(link: SlowLink, valkey: Any, mbit_per_s: float) -> None:
    """A result of megabytes is on its way; Redis says nothing until it has all of it."""
    link.tune(mbit_per_s=mbit_per_s, round_trip_ms=4)
    troubles: list[str | None] = []
    size = round(2.5 * WITHIN_S * mbit_per_s * 1e6 / 8)
    async with running(link, troubles) as runner:
        assert await runner.call(SIZES, STORE, {}, text=b"x" * size) == size

    assert troubles == []
    assert valkey.strlen("stored") == size
    assert link.carried["up"] < 1.1 * size


async def test_small_calls_wait_for_no_large_ones(link: SlowLink) -> None:
    """Claims, reports and small results go through while megabytes move both ways."""
    async with running(link, []) as runner:
        large: list[asyncio.Task[Any]] = [
            asyncio.create_task(runner.call(SIZES, FETCH, {}, size=4 * MIB)),
            *(asyncio.create_task(runner.call(SIZES, STORE, {}, text=b"x" * MIB)) for _ in range(4)),
        ]
        slowest = 0.0
        for number in range(20):
            began = time.monotonic()
            await runner.call(TALLY, COUNT, {}, token=str(number))
            slowest = max(slowest, time.monotonic() - began)
        assert not any(call.done() for call in large[:1])
        assert slowest < 0.5
        await asyncio.gather(*large)


async def test_a_large_call_waits_for_no_large_reply(link: SlowLink) -> None:
    """A result of a megabyte is stored while a pop of many is still coming in."""
    async with running(link, []) as runner:
        popping = asyncio.create_task(runner.call(SIZES, FETCH, {}, size=4 * MIB))
        await runner.call(SIZES, STORE, {}, text=b"x" * MIB)
        assert not popping.done()
        await popping


@pytest.mark.parametrize("size", [1, 8 * MIB])
async def test_a_peer_that_falls_silent_is_noticed_all_the_same(
    link: SlowLink, valkey_server: EmbeddedValkey, size: int
) -> None:
    """In the middle of a large call, or before a small one is answered."""
    troubles: list[str | None] = []
    link.tune(mbit_per_s=0, round_trip_ms=1)
    async with running(link, troubles) as runner:
        with stopped(valkey_server):
            began = time.monotonic()
            storing = asyncio.create_task(runner.call(SIZES, STORE, {}, text=b"x" * size))
            async with asyncio.timeout(5):
                while not troubles:  # noqa: ASYNC110  # told by the runner, which has no event for it
                    await asyncio.sleep(0.01)
            assert time.monotonic() - began < 4 * WITHIN_S
        await storing

    assert troubles == ["TimeoutError", None]


async def test_trouble_is_over_once_every_connection_works(link: SlowLink) -> None:
    """Small calls that succeed do not say so for a large one that is still being tried."""
    troubles: list[str | None] = []
    async with running(link, troubles) as runner:
        link.reset()
        await asyncio.gather(
            runner.call(SIZES, FETCH, {}, size=MIB),
            runner.call(SIZES, STORE, {}, text=b"x" * MIB),
            *(runner.call(TALLY, COUNT, {}, token=str(number)) for number in range(50)),
        )

    assert [trouble is None for trouble in troubles] == [False, True] * (len(troubles) // 2)
    assert len(troubles) <= 2
