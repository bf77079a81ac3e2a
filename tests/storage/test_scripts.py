"""Script calls over a connection that breaks, and a server that says no: each caller gets one reply, or one error."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from support.heard import Heard
from support.ledger_parts import connections_being_killed, eventually
from support.tally import COUNT, FAIL, INSIST, TALLY, WRONG

from worker.devtools.devstack import EmbeddedValkey
from worker.storage.commands import Script
from worker.storage.connection import RedisTarget
from worker.storage.scripts import ScriptError, ScriptRunner


@pytest.fixture
async def troubles() -> list[str | None]:
    return []


@pytest.fixture
async def runner(redis_url: str, troubles: list[str | None]) -> AsyncGenerator[ScriptRunner]:
    runner = ScriptRunner(RedisTarget.parse(redis_url).async_client(), events=Heard(troubles))
    yield runner
    await runner.aclose()


async def test_calls_made_together_leave_together(runner: ScriptRunner, valkey: Any) -> None:
    """And each gets its own reply."""
    await runner.call(TALLY, COUNT, {}, token="first")
    valkey.config_resetstat()
    tokens = [str(number) for number in range(250)]

    replies = await asyncio.gather(*(runner.call(TALLY, COUNT, {}, token=token) for token in tokens))

    assert [reply.decode() for reply in replies] == tokens
    assert valkey.info("commandstats")["cmdstat_evalsha"]["calls"] < len(tokens) / 10, "a run of the script for many"
    assert valkey.info("stats")["total_reads_processed"] < 20, "a round trip for many"
    assert "cmdstat_script|load" not in valkey.info("commandstats"), "once for the life of the process"


async def test_every_call_gets_one_reply_while_connections_die(
    runner: ScriptRunner, redis_url: str, valkey: Any, troubles: list[str | None]
) -> None:
    """Hundreds at a time; nothing is doubled, nothing is lost, and the trouble is told in turns."""
    replies: Counter[str] = Counter()

    async def ask(token: str) -> None:
        reply = await runner.call(TALLY, COUNT, {}, token=token)
        replies[reply.decode()] += 1

    with connections_being_killed(redis_url) as killed:
        asked = 0
        while killed["connections"] < 10:
            await asyncio.gather(*(ask(str(asked + number)) for number in range(300)))
            asked += 300

    assert replies == Counter(str(number) for number in range(asked))
    assert int(valkey.get("count")) == asked
    await ask("last")
    assert troubles
    assert [trouble is None for trouble in troubles] == [False, True] * (len(troubles) // 2)


async def test_a_server_that_forgot_the_script_is_told_again(
    runner: ScriptRunner, valkey: Any, troubles: list[str | None]
) -> None:
    """A restart or SCRIPT FLUSH is no trouble at all."""
    await runner.call(TALLY, COUNT, {}, token="a")
    valkey.script_flush()

    replies = await asyncio.gather(*(runner.call(TALLY, COUNT, {}, token=token) for token in ("b", "c")))

    assert replies == [b"b", b"c"]
    assert troubles == []


async def test_a_script_that_the_server_has_is_not_sent_by_the_next_process(
    runner: ScriptRunner, redis_url: str, valkey: Any
) -> None:
    """A script has tens of kilobytes, and each costs a round trip."""
    await runner.call(TALLY, COUNT, {}, token="a")
    valkey.config_resetstat()
    other = ScriptRunner(RedisTarget.parse(redis_url).async_client())

    assert await other.call(TALLY, COUNT, {}, token="b") == b"b"
    assert "cmdstat_script|load" not in valkey.info("commandstats")
    await other.aclose()


async def test_a_read_only_server_is_waited_for(runner: ScriptRunner, valkey: Any, troubles: list[str | None]) -> None:
    """After a failover the old address may lead to another server, so the connection is opened anew."""
    await runner.call(TALLY, COUNT, {}, token="a")
    ours = {client["id"] for client in valkey.client_list() if client["name"] == "responses-worker"}
    valkey.replicaof("127.0.0.1", 1)
    try:
        call = asyncio.create_task(runner.call(TALLY, COUNT, {}, token="b"))
        await eventually(lambda: troubles)
        assert troubles == ["ReadOnlyError"]
        assert not call.done()
    finally:
        valkey.replicaof("no", "one")

    assert await call == b"b"
    assert troubles == ["ReadOnlyError", None]
    assert not ours & {client["id"] for client in valkey.client_list()}


@pytest.mark.parametrize(
    "error",
    [
        "OOM command not allowed when used memory > 'maxmemory'.",
        "READONLY You can't write against a read only replica.",
        "NOPERM this user has no permissions to run the 'evalsha' command",
        "ERR ACL failure in script: User w has no permissions to run the 'xadd' command script: on @x:1.",
        "MISCONF Errors writing to the AOF file: No space left on device",
        "NOREPLICAS Not enough good replicas to write.",
        "MASTERDOWN Link with MASTER is down",
        "CLUSTERDOWN The cluster is down",
        "TRYAGAIN Multiple keys request during rehashing of slot",
        "BUSY Redis is busy running a script.",
        "LOADING Redis is loading the dataset in memory",
        "UNBLOCKED force unblock from blocking operation",
    ],
)
async def test_what_passes_is_waited_for(runner: ScriptRunner, valkey: Any, error: str) -> None:
    """Redis as it restarts, fails over, fills up or is repaired; the call goes through afterwards."""
    valkey.set("broken", error)

    call = asyncio.create_task(runner.call(TALLY, COUNT, {}, token="a"))
    await asyncio.wait([call], timeout=0.1)
    assert not call.done()
    valkey.delete("broken")

    assert await call == b"a"


@pytest.mark.parametrize("error", ["ERR no such thing", "WRONGTYPE Operation", "MOVED 1 127.0.0.1:1", "BUSYGROUP x"])
async def test_what_stays_is_an_error_at_once(runner: ScriptRunner, error: str) -> None:
    with pytest.raises(ScriptError):
        await runner.call(TALLY, FAIL, {}, error=error)


async def test_an_error_hits_its_caller_only(runner: ScriptRunner, valkey: Any) -> None:
    valkey.hset("tally", "x", 1)
    replies = await asyncio.gather(
        runner.call(TALLY, COUNT, {}, token="a"),
        runner.call(TALLY, WRONG, {}),
        runner.call(TALLY, COUNT, {}, token="b"),
        return_exceptions=True,
    )

    assert (replies[0], replies[2]) == (b"a", b"b")
    assert isinstance(replies[1], ScriptError)
    assert str(replies[1]).startswith("WRONGTYPE")


@pytest.mark.parametrize(("argument", "error"), [(None, TypeError), ("\ud800", UnicodeEncodeError), (True, TypeError)])
async def test_an_argument_that_cannot_be_sent_hits_its_caller_only(
    runner: ScriptRunner, argument: Any, error: type[Exception], troubles: list[str | None]
) -> None:
    """Found while the batch is written it would fail the whole batch, again and again."""
    replies = await asyncio.gather(
        runner.call(TALLY, COUNT, {}, token="a"),
        runner.call(TALLY, COUNT, {}, token=argument),
        runner.call(TALLY, COUNT, {}, token="b"),
        return_exceptions=True,
    )

    assert (replies[0], replies[2]) == (b"a", b"b")
    assert isinstance(replies[1], error)
    assert troubles == []


async def test_a_script_that_does_not_compile_is_an_error(runner: ScriptRunner) -> None:
    broken = Script("#!lua\nnonsense(", "")

    with pytest.raises(ScriptError, match="compiling"):
        await runner.call(broken, COUNT, {}, token="a")
    assert await runner.call(TALLY, COUNT, {}, token="a") == b"a"


async def test_full_memory_holds_up_only_what_it_refuses(
    runner: ScriptRunner, valkey: Any, troubles: list[str | None]
) -> None:
    """Told once, however often the refused calls are tried, and once more when they have gone through."""
    valkey.config_set("maxmemory", 1)
    try:
        refused = [
            asyncio.create_task(runner.call(TALLY, COUNT, {}, token=f"refused {number}")) for number in range(200)
        ]
        async with asyncio.timeout(2):
            for number in range(100):
                await runner.call(TALLY, INSIST, {}, token=str(number))
        assert not any(call.done() for call in refused)
        assert troubles == ["OutOfMemoryError"]
    finally:
        valkey.config_set("maxmemory", 0)

    assert len(await asyncio.gather(*refused)) == 200
    assert int(valkey.get("count")) == 300
    assert troubles == ["OutOfMemoryError", None]


async def test_a_caller_that_left_is_not_asked_for(runner: ScriptRunner, valkey: Any) -> None:
    """And takes nobody with it; a refusal it left behind is no trouble any more."""
    valkey.set("broken", "OOM full")
    leaving = asyncio.create_task(runner.call(TALLY, COUNT, {}, token="left"))
    await asyncio.wait([leaving], timeout=0.05)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    valkey.delete("broken", "tally")

    assert await runner.call(TALLY, COUNT, {}, token="a") == b"a"
    await asyncio.wait([asyncio.create_task(asyncio.sleep(0.2))])
    assert valkey.hkeys("tally") == [b"a"]


async def test_closing_leaves_nobody_waiting(redis_url: str, valkey: Any) -> None:
    """Neither a call that was refused nor one that is on its way."""
    runner = ScriptRunner(RedisTarget.parse(redis_url).async_client())
    valkey.set("broken", "OOM full")
    refused = asyncio.create_task(runner.call(TALLY, COUNT, {}, token="a"))
    await asyncio.wait([refused], timeout=0.02)
    fresh = asyncio.create_task(runner.call(TALLY, COUNT, {}, token="b"))
    await asyncio.sleep(0)

    await runner.aclose()

    done, _ = await asyncio.wait([refused, fresh], timeout=1)
    assert all(call.cancelled() for call in done)
    assert len(done) == 2


async def test_a_server_that_comes_back_finds_the_calls_waiting(valkey_server: EmbeddedValkey, valkey: Any) -> None:
    """Told once, and once more when it is over."""
    assert valkey.ping()
    troubles: list[str | None] = []
    runner = ScriptRunner(RedisTarget.parse(valkey_server.url).async_client(), events=Heard(troubles))
    await runner.call(TALLY, COUNT, {}, token="before")

    valkey_server.kill()
    try:
        calls = [asyncio.create_task(runner.call(TALLY, COUNT, {}, token=str(number))) for number in range(3)]
        await asyncio.wait(calls, timeout=0.1)
        assert not any(call.done() for call in calls)
    finally:
        valkey_server.start()

    assert await asyncio.gather(*calls) == [b"0", b"1", b"2"]
    assert troubles[-1] is None
    assert len(troubles) == 2
    await runner.aclose()
