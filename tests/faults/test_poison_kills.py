"""One request kills every worker that calls for it: it dies alone, and who was in flight with it is answered."""

from collections import Counter

import pytest
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
def test_one_poison_among_fifty_riders(fleet: Fleet, producer: Producer, gateway: Simulator) -> None:
    """Three deaths, the third alone among suspects: one dead letter and its failed result, fifty answers."""
    riders = {producer.ask(f"{n} [[sim:slow=60*{SUSPECT_CRASHES}]]") for n in range(RIDERS // 2)}
    poison = producer.ask("[[id:poison]] [[sim:slow=60]]")
    riders |= {producer.ask(f"{n} [[sim:slow=60*{SUSPECT_CRASHES}]]") for n in range(RIDERS // 2, RIDERS)}

    for _ in range(SUSPECT_CRASHES):
        kill_who_calls(fleet, gateway, in_flight=RIDERS + 1)
    for _ in range(SUSPECT_CRASHES, POISON_CRASHES):
        kill_who_calls(fleet, gateway, in_flight=1)
    fleet.start()
    results = producer.results(RIDERS + 1, within_s=60)

    assert Counter(result["request_id"] for result in results) == Counter([*riders, poison])
    failed = {result["request_id"]: result["error"]["code"] for result in results if result["outcome"] != "completed"}
    assert failed == {poison: "internal_error"}
    letters = [(fields[b"reason"], fields[b"request_id"]) for _, fields in producer.redis.xrange("responses:dead")]
    assert letters == [(b"poison", poison.encode())]
    assert len(gateway.calls("poison")) == POISON_CRASHES
    assert producer.leftovers() == {}
