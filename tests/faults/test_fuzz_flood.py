"""Ten thousand messages that should not be, straight onto a lane: the worker lives, and every one is accounted for."""

import time

import pytest
from support.fuzz_parts import fuzzed
from support.polling import wait_until
from support.producer import Producer
from support.worker_process import Fleet

FLOOD = 10_000


def seconds_to_answer(producer: Producer, *, within_s: float) -> float:
    """Of one good request in a lane without junk; its hash is asked, because all results are many."""
    asked, request_id = time.monotonic(), producer.ask(lane="interactive")
    key = f"responses:request:default:{request_id}"
    wait_until(lambda: producer.redis.hget(key, "state") == b"completed", within_s=within_s, what="an answer")
    return time.monotonic() - asked


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", [1, 2])
def test_a_flood_of_junk_is_accounted_for(fleet: Fleet, producer: Producer, seed: int) -> None:
    """Each is answered under its own id, or is a dead letter without one; good requests are answered in 2 s."""
    worker = fleet.start()
    for message in fuzzed(seed, FLOOD):
        producer.push_raw(message, lane="batch")

    during = seconds_to_answer(producer, within_s=20)
    wait_until(lambda: not producer.leftovers(), within_s=200, what="an empty lane")
    after = seconds_to_answer(producer, within_s=2)

    answered = [result["request_id"] for result in producer.entries()]
    letters = [fields[b"request_id"].decode() for _, fields in producer.redis.xrange("responses:dead")]
    nameless = letters.count("")
    ended = worker.events("request.finished")
    again = [event["request_id"] for event in ended if event["outcome"] in ("duplicate", "busy")]
    assert len(answered) == len(set(answered)), "nobody is answered twice"
    assert len(answered) + nameless + len(again) == FLOOD + 2
    assert set(again) <= set(answered), "junk that is the same message again has its first one's answer"
    assert len(again) < FLOOD / 100
    assert set() < {letter for letter in letters if letter} <= set(answered), "who can be named is answered as well"
    assert nameless < FLOOD / 2
    assert worker.process.poll() is None
    assert not worker.events("request.crashed")
    print(f"{len(answered)} answered, {nameless} nameless; a good request took {during:.2f} s, then {after:.2f} s")  # noqa: T201  # what is measured
