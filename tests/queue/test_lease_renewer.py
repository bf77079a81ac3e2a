"""Leases of a busy process stay, those of a stuck one do not, and what is lost is told once."""

import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import pytest
import redis
from support.heard import Heard
from support.polling import wait_until
from support.redis_parts import BadNetwork

from worker.devtools.devstack import EmbeddedValkey
from worker.queue.lease_renewer import LeaseRenewer
from worker.storage import connection
from worker.storage.connection import RedisTarget

LEASE_MS = 150
LEASES = "responses:leases:interactive"


class Process:
    """The holdings of a worker process, and its hearing of losses."""

    def __init__(self, valkey: Any, url: str) -> None:
        self.redis = valkey
        self.held: list[tuple[str, str]] = []
        self.heard = Heard()
        self.arriving: list[tuple[str, str]] = []
        self.keeper = LeaseRenewer(
            RedisTarget.parse(url).client(),
            lambda: list(self.held),
            LEASE_MS,
            self.heard,
            arriving=lambda: list(self.arriving),
        )

    def hold(self, token: str, *, in_flight: bool = True) -> None:
        if in_flight:
            self.redis.hset("responses:inflight:interactive", token, "{}\nm")
            self.redis.zadd(LEASES, {token: 1})
        self.held.append(("interactive", token))

    def lease(self, token: str) -> float:
        """Until when, in ms of server time."""
        return self.redis.zscore(LEASES, token) or 0

    def renewed(self, token: str, *, within_s: float = 10.0) -> None:
        """Waits for a renewal that began after this call."""
        before = self.lease(token)
        wait_until(lambda: self.lease(token) > before, within_s=within_s, what=f"a renewal of {token}")


@pytest.fixture
def process(valkey: redis.Redis, redis_url: str) -> Generator[Process]:
    process = Process(valkey, redis_url)
    process.keeper.start()
    yield process
    process.keeper.stop()


@contextmanager
def beating(keeper: LeaseRenewer) -> Generator[None]:
    """The loop is alive, whatever the speed of this machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(keeper), "silence_s", 0.0)
        yield


def test_what_is_held_is_renewed(process: Process) -> None:
    with beating(process.keeper):
        process.hold("a")
        process.hold("b")

        for _ in range(3):
            process.renewed("a")
            process.renewed("b")

    assert process.heard.lost == []


def test_what_is_still_arriving_is_renewed_and_never_missed(process: Process) -> None:
    """A pop may take less than it was allowed to; what it did not take is nobody's loss."""
    with beating(process.keeper):
        process.hold("pop.interactive.1")
        process.arriving, process.held = [*process.held, ("interactive", "pop.interactive.2")], []

        for _ in range(4):
            process.renewed("pop.interactive.1")

    assert process.heard.lost == []


def test_a_loop_that_shows_no_heartbeat_for_a_lease_loses_what_it_holds(process: Process) -> None:
    """And gets back what nobody took meanwhile, once it beats again."""
    process.hold("a")
    process.keeper.beat()
    process.renewed("a")

    wait_until(lambda: process.keeper.silence_s * 1000 > LEASE_MS)
    wait_until(lambda: process.lease("a") < server_now_ms(process.redis), what="an expired lease")

    process.keeper.beat()
    process.renewed("a")


def test_a_delivery_that_was_just_answered_is_not_lost(process: Process) -> None:
    """It is still listed for the moment between the ledger's reply and the end of its run."""
    with beating(process.keeper):
        process.hold("a")
        process.hold("answered", in_flight=False)
        process.renewed("a")
        process.held.remove(("interactive", "answered"))
        process.renewed("a")
        process.renewed("a")

    assert process.heard.lost == []


def test_a_lost_delivery_is_told_once(process: Process) -> None:
    with beating(process.keeper):
        process.hold("a")
        process.hold("lost", in_flight=False)
        for _ in range(5):
            process.renewed("a")

    assert process.heard.lost == [{"lost"}]


def test_an_outage_is_survived(process: Process, valkey_server: EmbeddedValkey) -> None:
    """The deliveries in flight afterwards are renewed again."""
    with beating(process.keeper):
        process.hold("a")
        process.renewed("a")
        valkey_server.restart()
        process.hold("b")
        process.renewed("b")


def test_a_silent_connection_costs_no_lease(
    valkey: redis.Redis, valkey_server: EmbeddedValkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A peer that vanished tells nobody; the next renewal goes out on a new connection."""
    monkeypatch.setitem(connection.OPTIONS, "socket_timeout", 0.1)
    with BadNetwork(valkey_server.port) as network:
        process = Process(valkey, network.url)
        process.hold("a")
        process.keeper.start()
        with beating(process.keeper):
            process.renewed("a")
            network.strand()
            process.renewed("a", within_s=3)
        process.keeper.stop()


def test_after_a_failure_the_next_try_is_soon() -> None:
    """A lease leaves room for two lost renewals, and a timeout may cost a third of it by itself."""
    asked: list[float] = []

    class UnreachableRedis(redis.Redis):
        def execute_command(self, *_words: Any, **_options: Any) -> Any:
            asked.append(time.monotonic())
            raise redis.ConnectionError

    keeper = LeaseRenewer(UnreachableRedis(), lambda: [("interactive", "a")], 1_500, Heard())
    keeper.start()
    with beating(keeper):
        wait_until(lambda: len(asked) > 3)
    keeper.stop()

    assert asked[3] - asked[1] < 0.5, "less than a round of 0.5 s for two tries"


def test_stopping_ends_the_thread(valkey: redis.Redis, redis_url: str) -> None:
    process = Process(valkey, redis_url)
    process.keeper.start()
    assert "lease-keeper" in {thread.name for thread in threading.enumerate()}

    process.keeper.stop()

    assert "lease-keeper" not in {thread.name for thread in threading.enumerate()}


def server_now_ms(client: Any) -> float:
    seconds, microseconds = client.time()
    return seconds * 1000 + microseconds / 1000
