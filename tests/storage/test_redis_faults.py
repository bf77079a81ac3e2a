"""A network that loses replies, or connections, without a word: each call notices in time, and gets its own reply."""

import asyncio
import gc
import weakref
from collections.abc import AsyncGenerator, Sequence
from contextvars import ContextVar
from typing import Any

import pytest
from support.heard import Heard
from support.ledger_parts import eventually
from support.redis_parts import BadNetwork, stopped
from test_scripts import COUNT, TALLY

from worker.devtools.devstack import EmbeddedValkey
from worker.queue import deltas as relay_module
from worker.queue.deltas import DeltaRelay
from worker.storage import sender as sender_module
from worker.storage.connection import RedisTarget
from worker.storage.scripts import ScriptRunner
from worker.storage.sender import BATCH_BYTES, Call, Sender

WITHIN_S = 0.3


@pytest.fixture
async def troubles() -> list[str | None]:
    return []


@pytest.fixture
async def runner(network: BadNetwork, troubles: list[str | None]) -> AsyncGenerator[ScriptRunner]:
    client = RedisTarget.parse(network.url).async_client()
    runner = ScriptRunner(client, events=Heard(troubles), within_s=WITHIN_S)
    yield runner
    await runner.aclose()


async def test_a_silent_connection_is_given_up_in_time(
    runner: ScriptRunner, network: BadNetwork, troubles: list[str | None]
) -> None:
    """A peer that vanished tells nobody; the call goes out again on a new connection."""
    await runner.call(TALLY, COUNT, {}, token="a")
    network.strand()

    async with asyncio.timeout(5):
        assert await runner.call(TALLY, COUNT, {}, token="b") == b"b"
    assert troubles == ["TimeoutError", None]


async def test_a_connection_that_the_server_closed_while_it_was_idle_is_no_trouble(
    redis_url: str, valkey: Any, troubles: list[str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As its `timeout` setting has it. A busy sender keeps its connection, and an idle one looks at it first."""
    runner = ScriptRunner(RedisTarget.parse(redis_url).async_client(), events=Heard(troubles))
    await runner.call(TALLY, COUNT, {}, token="a")
    for client in valkey.client_list(_type="normal"):
        if client["name"] == "responses-worker":
            valkey.client_kill_filter(_id=client["id"])
    monkeypatch.setattr(sender_module, "FRESH_S", 0.0)

    assert await runner.call(TALLY, COUNT, {}, token="b") == b"b"
    assert troubles == []
    await runner.aclose()


async def test_a_server_that_takes_connections_and_says_nothing_is_no_trap(
    runner: ScriptRunner, valkey_server: EmbeddedValkey, troubles: list[str | None]
) -> None:
    """The set-up of a connection is bounded as well."""
    with stopped(valkey_server):
        call = asyncio.create_task(runner.call(TALLY, COUNT, {}, token="a"))
        await eventually(lambda: troubles)

    assert await call == b"a"


async def test_a_late_reply_is_nobody_elses(
    runner: ScriptRunner, valkey_server: EmbeddedValkey, troubles: list[str | None]
) -> None:
    """It arrives when its caller has gone and another one listens."""
    await runner.call(TALLY, COUNT, {}, token="a")
    with stopped(valkey_server):
        late = asyncio.create_task(runner.call(TALLY, COUNT, {}, token="late"))
        await eventually(lambda: troubles)
        late.cancel()
        listening = asyncio.create_task(runner.call(TALLY, COUNT, {}, token="b"))
        await asyncio.wait([listening], timeout=WITHIN_S / 2)

    assert await listening == b"b"
    assert await asyncio.gather(*(runner.call(TALLY, COUNT, {}, token=str(n)) for n in range(3))) == [b"0", b"1", b"2"]


async def test_a_reply_that_breaks_off_is_asked_for_again(runner: ScriptRunner, network: BadNetwork) -> None:
    """Callers whose replies came before the break are not answered twice, nor by each other's."""
    await runner.call(TALLY, COUNT, {}, token="first")
    network.break_replies(3)

    tokens = [str(number) for number in range(500)]
    replies = await asyncio.gather(*(runner.call(TALLY, COUNT, {}, token=token) for token in tokens))

    assert [reply.decode() for reply in replies] == tokens
    assert network.broken


@pytest.mark.parametrize("share", [3, 4, 7, 0.5])
async def test_a_batch_is_bounded_by_bytes(runner: ScriptRunner, monkeypatch: pytest.MonkeyPatch, share: float) -> None:
    """Calls of which so many fit into a batch; what is larger than a batch goes alone."""
    batches: list[list[int]] = []
    round_trip = Sender._round_trip  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # what goes out together is the point

    async def weighed(sender: Sender, runs: Sequence[Sequence[Call]]) -> list[Any]:
        batches.append([call.size for run in runs for call in run])
        return await round_trip(sender, runs)

    monkeypatch.setattr(Sender, "_round_trip", weighed)
    large = "x" * int(BATCH_BYTES / share - 100)
    await asyncio.gather(*(runner.call(TALLY, COUNT, {}, token=f"{number}{large}") for number in range(15)))

    assert max(map(len, batches)) == max(1, int(share))
    assert all(len(batch) == 1 or sum(batch) <= BATCH_BYTES for batch in batches)


async def test_deltas_that_nobody_takes_hold_up_no_answer(
    network: BadNetwork, valkey_server: EmbeddedValkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer is published once its own deltas are sent, or given up."""
    monkeypatch.setattr(relay_module, "PATIENCE_S", WITHIN_S)
    relay = DeltaRelay(RedisTarget.parse(network.url).async_client())
    pump = asyncio.create_task(relay.pump())
    with stopped(valkey_server):
        deltas = relay.open("responses:deltas:acme:r", 1)
        deltas.event(b'{"type":"x"}')
        async with asyncio.timeout(2):
            await deltas.flushed()
    pump.cancel()
    await asyncio.wait([pump])
    await relay.client.aclose()


class Prompt:
    """Something large that a run's context leads to."""


async def test_whoever_calls_first_is_not_remembered(runner: ScriptRunner, valkey_server: EmbeddedValkey) -> None:
    """The sender may live as long as the process; a caller's context leads to its request."""
    current: ContextVar[Prompt] = ContextVar("current")

    async def ask(prompt: Prompt) -> None:
        current.set(prompt)
        await runner.call(TALLY, COUNT, {}, token="a")

    with stopped(valkey_server):
        prompt = Prompt()
        seen = weakref.ref(prompt)
        caller = asyncio.create_task(ask(prompt))
        await asyncio.wait([caller], timeout=0.01)
        other = asyncio.create_task(runner.call(TALLY, COUNT, {}, token="b"))
        caller.cancel()
        await asyncio.wait([caller])
        del prompt, caller
        gc.collect()
        assert seen() is None

    assert await other == b"b"
