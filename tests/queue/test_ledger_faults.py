"""Things in our way: keys that are something else, memory that is full, a server that dies."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
import redis
from support.ledger_parts import COMPLETED, HOUR_MS, RESULTS, Desk, claim_of, connections_being_killed, open_desk

from worker.devtools.devstack import embedded_valkey
from worker.queue.attempts import AttemptRecord
from worker.queue.claims import Delivery, Lease, Refusal, WriteOutcome
from worker.storage.scripts import ScriptError

ATTEMPT = AttemptRecord(number=1)
OTHER = f"{RESULTS}:other"


@pytest.mark.parametrize("key", ["responses:request:acme:r", OTHER])
async def test_what_could_never_be_answered_is_dead_before_it_is_paid_for(desk: Desk, key: str) -> None:
    """A caller made something else of its id's or its results' key: the message must not come back for ever."""
    desk.redis.set(key, "mine", px=HOUR_MS)
    delivery = await desk.taken("m")

    assert await desk.ledger.claim(delivery, claim_of(stream=OTHER)) is Refusal.DEAD_LETTERED
    assert desk.dead() == [("the key of its request or of its results is a string", "m")]
    assert desk.places() == {}
    assert desk.redis.get(key) == b"mine"
    desk.redis.delete(key)


@pytest.mark.parametrize("key", [RESULTS, "responses:streams"])
async def test_an_answer_that_cannot_be_published_can_be_once_the_way_is_free(desk: Desk, key: str) -> None:
    """Nothing is half done: no second entry, no final state without one."""
    lease = await desk.leased()
    desk.redis.set(key, "mine")

    for _ in range(2):
        with pytest.raises(ScriptError, match="WRONGTYPE"):
            await desk.ledger.complete(lease, COMPLETED, kept_ms=HOUR_MS)
    assert desk.request()["state"] == "running"
    assert desk.places() == {"inflight": 1}
    desk.redis.delete(key)

    assert await desk.ledger.complete(lease, COMPLETED, kept_ms=HOUR_MS) is WriteOutcome.OK
    assert len(desk.results()) == 1


async def test_an_answer_that_was_published_is_never_published_again(desk: Desk) -> None:
    """Even where something behind the publication is in the way."""
    lease = await desk.leased()
    desk.redis.set("responses:kept", "mine")

    with pytest.raises(ScriptError, match="WRONGTYPE"):
        await desk.ledger.complete(lease, COMPLETED, kept_ms=HOUR_MS)

    assert await desk.ledger.complete(lease, COMPLETED, kept_ms=HOUR_MS) is WriteOutcome.OK
    assert len(desk.results()) == 1


@pytest.mark.parametrize(
    "key", [f"responses:{kind}:{lane}" for kind in ("inflight", "leases") for lane in ("interactive", "batch")]
)
async def test_a_message_that_cannot_be_leased_stays_in_its_lane(desk: Desk, key: str) -> None:
    desk.redis.set(key, "mine")
    desk.enqueue("a", "b")
    desk.enqueue("1", lane="batch")

    with pytest.raises(ScriptError, match="WRONGTYPE"):
        await desk.take(interactive=1, batch=1)
    desk.redis.delete(key)

    assert desk.lane() == ["a", "b"]
    assert [delivery.message for delivery in await desk.take(interactive=2, batch=1)] == [b"a", b"b", b"1"]


@pytest.mark.parametrize("key", ["responses:parked:interactive", "responses:delayed:interactive"])
async def test_a_message_that_cannot_be_parked_stays_in_flight(desk: Desk, key: str) -> None:
    lease = await desk.leased()
    desk.redis.set(key, "mine")

    with pytest.raises(ScriptError, match="WRONGTYPE"):
        await desk.ledger.park(lease, delay_ms=0, failures=1, throttle_ms=0)
    desk.redis.delete(key)

    assert await desk.ledger.park(lease, delay_ms=0, failures=1, throttle_ms=0) is WriteOutcome.OK
    assert desk.places() == {"parked": 1}


@pytest.mark.parametrize("way", ["release", "reclaim", "promote"])
async def test_a_message_that_cannot_return_to_its_lane_stays_where_it_is(desk: Desk, way: str) -> None:
    lease = await desk.leased()
    if way == "promote":
        await desk.ledger.park(lease, delay_ms=0, failures=0, throttle_ms=0)
    desk.redis.set("responses.interactive", "mine")

    ways: dict[str, Callable[[], Awaitable[object]]] = {
        "release": lambda: desk.ledger.release(lease, throttle_ms=0),
        "reclaim": desk.reclaimed,
        "promote": lambda: desk.ledger.promote(["interactive"]),
    }
    with pytest.raises(ScriptError, match="WRONGTYPE"):
        await ways[way]()
    desk.redis.delete("responses.interactive")

    await desk.ledger.promote(["interactive"])
    await desk.reclaimed()
    assert (desk.places(), desk.lane()) == ({"queued": 1}, ["m"])


async def test_a_letter_that_cannot_be_buried_stays_in_flight(desk: Desk) -> None:
    delivery = await desk.taken()
    desk.redis.set("responses:dead", "mine")

    with pytest.raises(ScriptError, match="WRONGTYPE"):
        await desk.ledger.bury(delivery, "junk")

    assert desk.places() == {"inflight": 1}


async def test_no_error_tells_what_a_message_says(desk: Desk) -> None:
    """Error texts go to logs."""
    lease = await desk.leased()
    desk.redis.set(RESULTS, "mine")

    with pytest.raises(ScriptError) as caught:
        await desk.ledger.complete(lease, COMPLETED, kept_ms=HOUR_MS)

    assert "answer" not in str(caught.value)


async def test_full_memory_stops_enqueueing_and_nothing_else(desk: Desk) -> None:
    """A backlog that fills Redis drains; every step on the way goes through at once."""
    unclaimed, begun = await desk.taken("x"), await desk.leased()
    leases = [begun, *[await desk.leased(str(number)) for number in range(3)]]
    desk.enqueue("waiting")
    desk.redis.config_set("maxmemory", 1)
    try:
        with pytest.raises(redis.OutOfMemoryError):
            desk.enqueue("refused")
        async with asyncio.timeout(2):
            assert len(await desk.take()) == 1
            assert isinstance(await desk.ledger.claim(unclaimed, claim_of("x")), Lease)
            assert await desk.ledger.begin(begun, ATTEMPT) is WriteOutcome.OK
            for _ in range(20):
                await desk.ledger.promote(["interactive"])
                await desk.ledger.reclaim(["interactive"])
            await desk.ledger.complete(leases[1], COMPLETED, kept_ms=HOUR_MS)
            await desk.ledger.park(leases[2], delay_ms=0, failures=1, throttle_ms=0)
            await desk.ledger.release(leases[3], throttle_ms=0)
            await desk.ledger.forget()
        assert desk.results() == [("0", "completed", COMPLETED.result)]
        assert desk.places() == {"queued": 1, "inflight": 3, "parked": 1}
    finally:
        desk.redis.config_set("maxmemory", 0)


async def test_every_request_gets_one_result_while_connections_die(desk: Desk, redis_url: str) -> None:
    """Replies of any command may be lost; whatever is asked again is not done again."""
    count = 300
    desk.enqueue(*(str(number) for number in range(count)))

    async def work() -> None:
        while deliveries := await desk.take(interactive=3):
            await asyncio.gather(*(run(delivery) for delivery in deliveries))

    async def run(delivery: Delivery) -> None:
        lease = await desk.ledger.claim(delivery, claim_of(delivery.message.decode()))
        assert isinstance(lease, Lease)
        if not lease.failures:
            await desk.ledger.park(lease, delay_ms=0, failures=1, throttle_ms=0)
            await desk.ledger.promote(["interactive"])
            return
        assert await desk.ledger.begin(lease, ATTEMPT) is WriteOutcome.OK
        assert await desk.ledger.complete(lease, COMPLETED, kept_ms=HOUR_MS) is WriteOutcome.OK

    with connections_being_killed(redis_url) as killed:
        await asyncio.gather(*(work() for _ in range(40)))

    assert desk.places() == {}
    assert sorted(int(request_id) for request_id, *_ in desk.results()) == list(range(count))
    assert killed["connections"] > 0


async def test_a_killed_server_forgets_nothing_it_has_confirmed() -> None:
    """With an append-only file that is synced always, on one node."""
    with embedded_valkey(appendonly=True) as server, redis.Redis.from_url(server.url) as client:  # pyright: ignore[reportUnknownMemberType]  # untyped kwargs
        async with open_desk(client, server.url) as desk:
            leases = [await desk.leased(str(number)) for number in range(4)]
            desk.enqueue("queued")
            await desk.ledger.park(leases[1], delay_ms=0, failures=1, throttle_ms=0)
            await desk.ledger.complete(leases[2], COMPLETED, kept_ms=HOUR_MS)
            before = desk.everything()

            server.kill()
            answering = asyncio.create_task(desk.ledger.complete(leases[3], COMPLETED, kept_ms=HOUR_MS))
            await asyncio.to_thread(server.start)
            verdict = await answering

            assert verdict is WriteOutcome.OK
            assert [entry[0] for entry in desk.results()] == ["2", "3"]
            assert desk.places() == {"queued": 1, "inflight": 1, "parked": 1}
            untouched = {key for key in before if "request:acme" in key and not key.endswith(":3")}
            assert {key: desk.everything()[key] for key in untouched} == {key: before[key] for key in untouched}
            assert await desk.ledger.complete(leases[0], COMPLETED, kept_ms=HOUR_MS) is WriteOutcome.OK
