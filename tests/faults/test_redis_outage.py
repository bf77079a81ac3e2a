"""Redis is away for longer than any lease: nothing is called twice, and everything is answered."""

import time
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager

import pytest
from support.polling import wait_until
from support.producer import Producer
from support.redis_parts import stopped
from support.worker_process import Fleet

from worker.devtools.devstack import EmbeddedValkey, Simulator, embedded_valkey

OUTAGE_S = 30
CALLS = 100


@contextmanager
def killed(server: EmbeddedValkey) -> Generator[None]:
    """Kill -9, and back with its append-only file."""
    server.kill()
    try:
        yield
    finally:
        server.start()


@pytest.mark.parametrize("away", [killed, stopped], ids=["killed", "stopped"])
def test_half_a_minute_without_redis_pays_for_nothing_twice(
    gateway: Simulator, away: Callable[[EmbeddedValkey], AbstractContextManager[None]]
) -> None:
    """A hundred calls are in flight: some end before, most meanwhile, the last ones after. Leases end after 15 s."""
    with (
        embedded_valkey(appendonly=True) as server,
        Producer(server.url) as producer,
        Fleet(server.url, gateway.url) as fleet,
    ):
        workers = [fleet.start(concurrency=CALLS) for _ in range(2)]
        asked = {producer.ask(f"[[id:{number}]] [[sim:slow={2 + number * 0.4}]]"): number for number in range(CALLS)}
        wait_until(lambda: len(gateway.calls()) == CALLS, what="all calls in flight")
        began = time.monotonic()

        with away(server):
            wait_until(lambda: time.monotonic() - began > OUTAGE_S, within_s=OUTAGE_S + 5, what="the outage to end")
        results = producer.results(CALLS, within_s=60)

        assert Counter(result["request_id"] for result in results) == Counter(asked.keys())
        assert {result["outcome"] for result in results} == {"completed"}
        assert len(gateway.calls()) == CALLS
        assert producer.leftovers() == {}
        for worker in workers:
            assert [len(worker.events(f"redis.{what}")) for what in ("lost", "recovered")] == [1, 1]
