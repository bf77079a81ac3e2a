"""Redis is there and says no: workers stop taking what they could not record, say so once, and lose nothing.

Full memory is no such case: it refuses what producers send, and a backlog drains.
"""

import itertools
from collections import Counter
from collections.abc import Generator
from threading import Thread

import kombu.exceptions
import pytest
import redis
from support.link_runs import message
from support.polling import wait_until
from support.producer import Producer
from support.redis_parts import stays
from support.worker_process import Fleet, WorkerProcess

from worker.devtools.devstack import EmbeddedValkey, Simulator, embedded_valkey

CALLS = 10
USER = "requests"


@pytest.fixture(scope="module")
def own_valkey() -> Generator[EmbeddedValkey]:
    with embedded_valkey(config={"enable-debug-command": "local", "save": ""}) as server:
        yield server


class Stage:
    """A worker that can hold ten requests, holds them, and has ten more in its lane."""

    def __init__(self, server: EmbeddedValkey, producer: Producer, fleet: Fleet, gateway: Simulator) -> None:
        self.server, self.redis, self.producer, self.gateway = server, producer.redis, producer, gateway
        self.worker: WorkerProcess = fleet.start(concurrency=CALLS)
        self.asked = [producer.ask("[[sim:slow=2]]") for _ in range(2 * CALLS)]
        wait_until(lambda: len(gateway.calls()) == CALLS, what="ten calls in flight")

    def told(self) -> list[str]:
        return [event["error"] for event in self.worker.events("redis.lost")]

    def queued(self) -> int:
        return self.redis.llen("responses.interactive")

    def takes_nothing(self) -> None:
        """From now on. What a call made room for may have been taken before its answer was refused."""
        left = self.queued()
        assert left > CALLS // 2
        stays(lambda: self.queued() == left, for_s=2)

    def ended(self) -> bool:
        """All calls in flight are over."""
        return self.gateway.stats().in_flight == 0

    def rode_through(self, *, incidents: int = 1) -> None:
        """Everything is answered, nothing was called twice, and each incident is told once."""
        results = self.producer.results(len(self.asked))
        assert Counter(result["request_id"] for result in results) == Counter(self.asked)
        assert {result["outcome"] for result in results} == {"completed"}
        assert len(self.gateway.calls()) == len(self.asked)
        assert self.producer.leftovers() == {}
        wait_until(lambda: len(self.worker.events("redis.recovered")) == incidents, what="the end of it to be told")
        assert len(self.told()) == incidents
        assert self.worker.events("ledger.refused") == []


@pytest.fixture
def stage(own_valkey: EmbeddedValkey, gateway: Simulator) -> Generator[Stage]:
    with redis.Redis.from_url(own_valkey.url) as client:  # pyright: ignore[reportUnknownMemberType]  # untyped kwargs
        client.flushall()  # pyright: ignore[reportUnknownMemberType]  # untyped kwargs
        client.execute_command("ACL", "SETUSER", USER, "reset", "on", ">pw", "allkeys", "allchannels", "allcommands")  # pyright: ignore[reportUnknownMemberType]  # untyped kwargs
    url = own_valkey.url.replace("//", f"//{USER}:pw@")
    with Producer(own_valkey.url) as producer, Fleet(url, gateway.url) as fleet:
        yield Stage(own_valkey, producer, fleet, gateway)


def test_full_memory_stops_producers_and_the_backlog_drains(stage: Stage) -> None:
    """To the last message, and without a word: nothing that a worker needs is refused."""
    stage.redis.config_set("maxmemory", 1)
    try:
        with pytest.raises(kombu.exceptions.OperationalError):
            stage.producer.app.send_task("responses.create", queue="responses.interactive", retry=False)
        stage.rode_through(incidents=0)
    finally:
        stage.redis.config_set("maxmemory", 0)


@pytest.mark.parametrize(("count", "size"), [(5_000, 2_000), (20, 4 * 2**20)])
def test_a_server_full_of_backlog_drains(own_valkey: EmbeddedValkey, gateway: Simulator, count: int, size: int) -> None:
    """Filled until it takes no more message; streamed, retried and too large requests are among them."""
    with Producer(own_valkey.url) as producer, Fleet(own_valkey.url, gateway.url) as fleet:
        producer.redis.flushall()
        used = producer.redis.info("memory")["used_memory"]
        producer.redis.config_set("maxmemory", used + count * size)
        try:
            asked = fill(producer, size)
            fleet.start(concurrency=50)
            answered = Counter(result["request_id"] for result in producer.results(asked, within_s=90))
            assert (len(answered), answered.total()) == (asked, asked)
            assert producer.leftovers() == {}
        finally:
            producer.redis.config_set("maxmemory", 0)


def fill(producer: Producer, size: int) -> int:
    """Pushes until Redis refuses; returns how many messages it took. Fewer are retried than the retry budget allows."""
    prompts = itertools.cycle(["[[sim:500*1]]", "[[sim:cut*1]]", *[""] * 28])
    for number in itertools.count():
        try:
            producer.push_raw(message(f"r-{number}", size, next(prompts)))
        except redis.OutOfMemoryError:
            return number
    raise AssertionError("unreachable")


def test_a_read_only_server_is_waited_for(stage: Stage) -> None:
    """As between a failover and the client that hears of it: paid answers wait, and nothing new is taken."""
    stage.redis.replicaof("127.0.0.1", 1)
    try:
        wait_until(stage.ended, what="the calls to end")
        wait_until(lambda: stage.told() == ["ReadOnlyError"], what="the refusal to be told")
        stage.takes_nothing()
        assert stage.producer.entries() == []
    finally:
        stage.redis.replicaof("no", "one")

    stage.rode_through()


@pytest.mark.parametrize(("command", "told"), [("xadd", "ACL failure in script"), ("evalsha", "NoPermissionError")])
def test_a_permission_that_is_missing_for_a_while_loses_no_answer(stage: Stage, command: str, told: str) -> None:
    """Of one command that a script runs, or of all scripts."""
    allow(stage, f"-{command}")
    try:
        wait_until(stage.ended, what="the calls to end")
        wait_until(lambda: stage.told() == [told], what="the refusal to be told")
        stage.takes_nothing()
        assert stage.producer.entries() == []
    finally:
        allow(stage, f"+{command}")

    stage.rode_through()


def test_nothing_is_taken_that_could_not_be_answered(stage: Stage) -> None:
    """Messages could still be taken, and paid for, while only publishing is refused."""
    stage.rode_through(incidents=0)
    allow(stage, "-xadd")
    try:
        stage.asked.append(stage.producer.ask())
        wait_until(stage.told, what="the refusal to be told")
        stage.asked.append(stage.producer.ask())
        stays(lambda: stage.queued() == 1, for_s=2)
    finally:
        allow(stage, "+xadd")

    stage.rode_through()


def test_a_server_that_loads_its_data_is_waited_for(stage: Stage) -> None:
    """It answers LOADING to everything for about three seconds."""
    stage.redis.mset({f"filler:{number}": "x" for number in range(1000)})
    stage.redis.config_set("key-load-delay", 3000)
    stage.redis.config_set("loading-process-events-interval-bytes", 1024)
    loading = Thread(target=reload_data, args=(stage.server.url,))
    loading.start()
    wait_until(lambda: stage.told() == ["BusyLoadingError"], what="the refusal to be told")
    loading.join()

    stage.rode_through()


def test_a_flushed_script_cache_is_no_trouble(stage: Stage) -> None:
    stage.redis.script_flush()

    stage.rode_through(incidents=0)


def allow(stage: Stage, rule: str) -> None:
    stage.redis.execute_command("ACL", "SETUSER", USER, rule)


def reload_data(url: str) -> None:
    with redis.Redis.from_url(url) as client:  # pyright: ignore[reportUnknownMemberType]  # untyped kwargs
        client.execute_command("DEBUG", "RELOAD")  # pyright: ignore[reportUnknownMemberType]  # untyped kwargs
