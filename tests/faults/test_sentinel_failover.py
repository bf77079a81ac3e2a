"""The primary dies, its replica takes over, and workers that were told of a sentinel go on by themselves."""

from collections import Counter
from collections.abc import Generator
from contextlib import ExitStack

import pytest
from support.polling import wait_until
from support.producer import Producer
from support.redis_parts import fail_over, sentinel, sentinel_url
from support.worker_process import Fleet

from worker.devtools.devstack import EmbeddedValkey, Simulator, embedded_valkey

IN_FLIGHT = 20
QUEUED = 10


@pytest.fixture
def primary() -> Generator[EmbeddedValkey]:
    with embedded_valkey(config={"repl-diskless-sync-delay": "0"}) as server:
        yield server


@pytest.fixture
def replica(primary: EmbeddedValkey) -> Generator[EmbeddedValkey]:
    with embedded_valkey(config={"replicaof": f"127.0.0.1 {primary.port}"}) as server, Producer(server.url) as seen:
        wait_until(lambda: seen.redis.info("replication")["master_link_status"] == "up", what="a replica in step")
        yield server


def is_primary(server: EmbeddedValkey) -> bool:
    """Asked on a connection of its own: a sentinel cuts all there are when it promotes."""
    with Producer(server.url) as seen:
        return seen.redis.info("replication")["role"] == "master"


def test_the_replica_takes_over_with_everything_it_had(
    primary: EmbeddedValkey, replica: EmbeddedValkey, gateway: Simulator
) -> None:
    """Calls in flight end while nobody is primary; their answers are published by the next one, once."""
    with ExitStack() as stack:
        watching = stack.enter_context(sentinel(primary))
        fleet = stack.enter_context(Fleet(sentinel_url(watching), gateway.url))
        before, after = (stack.enter_context(Producer(server.url)) for server in (primary, replica))
        worker = fleet.start(concurrency=IN_FLIGHT)
        asked = [before.ask("[[sim:slow=2]]") for _ in range(IN_FLIGHT + QUEUED)]
        wait_until(lambda: len(gateway.calls()) == IN_FLIGHT, what="calls in flight")
        assert before.redis.wait(1, 5000) == 1, "the replica has everything"

        primary.kill()
        wait_until(lambda: gateway.stats().in_flight == 0, what="the calls to end")
        fail_over(watching)
        wait_until(lambda: is_primary(replica), what="the replica to take over")
        results = after.results(IN_FLIGHT + QUEUED, within_s=40)

        assert Counter(result["request_id"] for result in results) == Counter(asked)
        assert {result["outcome"] for result in results} == {"completed"}
        assert len(gateway.calls()) == IN_FLIGHT + QUEUED
        assert after.leftovers() == {}
        assert after.result(after.ask())["outcome"] == "completed"
        assert len(worker.events("redis.lost")) == len(worker.events("redis.recovered")) == 1
        worker.terminate()
        assert worker.wait() == 0
