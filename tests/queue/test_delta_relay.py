"""Deltas when Redis is slow: a result waits for its own last one, not for long, and what waits is bounded."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest
from support.links import SlowLink

from worker.devtools.devstack import EmbeddedValkey
from worker.queue import deltas as relay_module
from worker.queue.deltas import PATIENCE_S, STREAM_BYTES, WAITING_BYTES, DeltaRelay, Deltas
from worker.storage.connection import RedisTarget

MIB: Final = 1024 * 1024


def token(number: int, size: int = 0) -> bytes:
    return json.dumps({"type": "response.output_text.delta", "n": number, "delta": "x" * size}).encode()


@pytest.fixture
def link(valkey_server: EmbeddedValkey, redis_url: str) -> Generator[SlowLink]:
    assert redis_url == valkey_server.url
    with SlowLink(valkey_server.port, round_trip_ms=4) as link:
        yield link


@asynccontextmanager
async def relaying(link: SlowLink) -> AsyncGenerator[DeltaRelay]:
    relay = DeltaRelay(RedisTarget.parse(link.url).async_client())
    pump = asyncio.create_task(relay.pump())
    yield relay
    pump.cancel()
    await asyncio.wait([pump])
    await relay.client.aclose()


async def flush_s(deltas: Deltas) -> float:
    began = time.monotonic()
    await deltas.flushed()
    return time.monotonic() - began


def entries(valkey: Any, stream: str) -> list[tuple[str, Any]]:
    """Type and number of each."""
    return [(row[b"type"].decode(), json.loads(row[b"data"]).get("n")) for _, row in valkey.xrange(stream)]


async def test_a_finished_stream_waits_for_its_own_last_token_alone(link: SlowLink, valkey: Any) -> None:
    """Sixty streams at 4 ms: the others never stop, and one after the other ends."""
    async with relaying(link) as relay:
        streams = [relay.open(f"responses:deltas:t:{number}", 1) for number in range(60)]
        stop = asyncio.Event()

        async def talk(deltas: Deltas) -> None:
            for number in range(100_000):
                if stop.is_set():
                    return
                deltas.event(token(number))
                await asyncio.sleep(0.01)

        talking = [asyncio.create_task(talk(deltas)) for deltas in streams[10:]]
        for deltas in streams[:10]:
            for number in range(50):
                deltas.event(token(number))
            assert await flush_s(deltas) < PATIENCE_S
            assert entries(valkey, deltas.stream) == [("response.output_text.delta", n) for n in range(50)]
        stop.set()
        await asyncio.gather(*talking)


@pytest.mark.parametrize("mbit_per_s", [0.5, 2])
async def test_a_result_does_not_wait_for_a_link_that_cannot_carry_the_tokens(
    link: SlowLink, mbit_per_s: float
) -> None:
    link.tune(mbit_per_s=mbit_per_s, round_trip_ms=4)
    async with relaying(link) as relay:
        deltas, other = relay.open("responses:deltas:t:a", 1), relay.open("responses:deltas:t:b", 1)
        for number in range(200):
            deltas.event(token(number, 4000))
            other.event(token(number, 4000))

        assert PATIENCE_S * 0.9 < await flush_s(deltas) < PATIENCE_S + 0.3
        assert relay.has_room(WAITING_BYTES - 200 * 4500), "what was given up takes no room"


async def test_what_waits_is_bounded_and_a_gap_is_told(
    link: SlowLink, valkey: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is sent while more comes than may wait; then the reader sees where events are missing."""
    monkeypatch.setattr(relay_module, "WAITING_BYTES", MIB)
    async with relaying(link) as relay:
        deltas = relay.open("responses:deltas:t:a", 1)
        for number in range(100):
            deltas.event(token(number, 50_000))
        assert sum(entry.size for entry in deltas.waiting) <= MIB
        await deltas.flushed()
        deltas.event(token(1000))
        await deltas.flushed()

    read = entries(valkey, "responses:deltas:t:a")
    kept = [number for kind, number in read if kind == "response.output_text.delta"]
    assert read == [
        *(("response.output_text.delta", number) for number in kept[:-1]),
        ("gap", None),
        ("response.output_text.delta", 1000),
    ]
    assert kept[:-1] == list(range(len(kept) - 1))
    assert 10 < len(kept) < 30


async def test_one_attempt_streams_no_more_than_a_bound(link: SlowLink, valkey: Any) -> None:
    """A gateway that streams megabyte after megabyte fills no Redis."""
    async with relaying(link) as relay:
        deltas = relay.open("responses:deltas:t:a", 1)
        for number in range(60):
            deltas.event(token(number, MIB // 2))
            await deltas.flushed()

    assert valkey.memory_usage("responses:deltas:t:a", samples=0) < 1.2 * STREAM_BYTES
    assert [kind for kind, _ in entries(valkey, "responses:deltas:t:a")][-1] == "gap"


async def test_tokens_that_redis_did_not_take_are_a_gap(link: SlowLink, valkey: Any) -> None:
    async with relaying(link) as relay:
        deltas = relay.open("responses:deltas:t:a", 1)
        deltas.event(token(1))
        await deltas.flushed()
        link.cut()
        deltas.event(token(2))
        await deltas.flushed()
        link.mend()
        deltas.event(token(3))
        await deltas.flushed()
        deltas.event(token(4))
        await deltas.flushed()

    read = entries(valkey, "responses:deltas:t:a")
    assert read[0] == ("response.output_text.delta", 1)
    assert ("response.output_text.delta", 2) not in read
    assert ("gap", None) in read
    assert read[-1] == ("response.output_text.delta", 4)
