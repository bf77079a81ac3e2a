"""One request kills every worker that calls for it: it dies alone, and who was in flight with it is answered."""

import time
from collections import Counter

import pytest
from support.command_line import called
from support.polling import wait_until
from support.producer import Producer
from support.worker_process import Fleet

from worker.devtools.devstack import Simulator
from worker.request.policy import POISON_CRASHES, SUSPECT_CRASHES

RIDERS = 50


def kill_who_calls(fleet: Fleet, gateway: Simulator, *, in_flight: int) -> None:
    """A worker lives until it calls for the poison, beside so many calls."""
    before = len(gateway.calls("poison"))
    worker = fleet.start()
    wait_until(lambda: len(gateway.calls("poison")) > before, within_s=60, what="a call for the poison")
    wait_until(lambda: gateway.stats().in_flight >= in_flight, what=f"{in_flight} calls in flight")
    worker.kill()


@pytest.mark.timeout(300)
def test_a_request_that_workers_die_with_before_its_call_is_dead_as_well(
    fleet: Fleet, producer: Producer, gateway: Simulator, redis_url: str
) -> None:
    """It waits for a budget that nobody may use; three processes die with nothing but it in their hands."""
    called("pause", WORKER_REDIS_URL=redis_url)
    poison = producer.ask("[[id:poison]]")
    for crashes in range(POISON_CRASHES):
        worker = fleet.start()
        wait_until(
            lambda seen=crashes: held(producer, poison) == ("running", seen), within_s=60, what="it is held again"
        )
        worker.kill()
    fleet.start()
    result = producer.result(poison, within_s=60)

    assert result["error"]["code"] == "internal_error"
    assert [fields[b"reason"] for _, fields in producer.redis.xrange("responses:dead")] == [b"poison"]
    assert gateway.calls() == []
    assert producer.leftovers() == {}


@pytest.mark.timeout(300)
def test_two_kills_from_outside_cost_two_rounds(fleet: Fleet, producer: Producer, gateway: Simulator) -> None:
    """All that was in flight runs again in two halves, and not one call after the other."""
    riders = {producer.ask(f"{n} [[sim:slow=2]]") for n in range(60)}
    for _ in range(2):
        gateway.reset()
        worker = fleet.start()
        wait_until(lambda: gateway.stats().in_flight >= len(riders), within_s=60, what="all calls in flight")
        worker.kill()
        wait_until(lambda: gateway.stats().in_flight == 0, within_s=30, what="the calls end")
        wait_until(lambda: producer.redis.llen("responses.interactive") == 0, what="nothing waits")
    fleet.start()
    wait_until(producer.entries, within_s=60, what="the first half")
    began = time.monotonic()
    results = producer.results(len(riders), within_s=60)

    assert Counter(result["request_id"] for result in results) == Counter(riders)
    assert {result["outcome"] for result in results} == {"completed"}
    assert time.monotonic() - began < 15
    assert producer.redis.xlen("responses:dead") == 0


def held(producer: Producer, request_id: str) -> tuple[str, int]:
    """The state of a request, and its crashes."""
    state, crashes = producer.redis.hmget(f"responses:request:default:{request_id}", "state", "crashes")
    return (state or b"").decode(), int(crashes or 0)


@pytest.mark.timeout(300)
def test_one_poison_among_fifty_riders(fleet: Fleet, producer: Producer, gateway: Simulator) -> None:
    """Three deaths, the third alone among suspects: one dead letter and its failed result, fifty answers."""
    riders = {producer.ask(f"{n} [[sim:slow=60*{SUSPECT_CRASHES}]]") for n in range(RIDERS // 2)}
    poison = producer.ask("[[id:poison]] [[sim:slow=60]]")
    riders |= {producer.ask(f"{n} [[sim:slow=60*{SUSPECT_CRASHES}]]") for n in range(RIDERS // 2, RIDERS)}

    for _ in range(SUSPECT_CRASHES):
        kill_who_calls(fleet, gateway, in_flight=RIDERS + 1)
    worker = fleet.start()
    wait_until(lambda: len(producer.entries()) == RIDERS, within_s=60, what="all riders are answered")
    wait_until(lambda: len(gateway.calls("poison")) == POISON_CRASHES, within_s=60, what="the poison is called for")
    worker.kill()
    fleet.start()
    results = producer.results(RIDERS + 1, within_s=60)

    assert Counter(result["request_id"] for result in results) == Counter([*riders, poison])
    failed = {result["request_id"]: result["error"]["code"] for result in results if result["outcome"] != "completed"}
    assert failed == {poison: "internal_error"}
    letters = [(fields[b"reason"], fields[b"request_id"]) for _, fields in producer.redis.xrange("responses:dead")]
    assert letters == [(b"poison", poison.encode())]
    assert len(gateway.calls("poison")) == POISON_CRASHES
    assert producer.result(producer.ask())["outcome"] == "completed"  # the next call sweeps the permit of the dead one
    assert producer.leftovers() == {}
