"""Messages that other releases left in Redis are answered like any other."""

import json
from collections import Counter

import pytest
import redis
from support.command_line import called
from support.producer import Producer
from support.release_recording import RECORDINGS, restore
from support.worker_process import Fleet

AT_REST_MS = 20_000
"""Longer than a lease: whoever held these is gone."""

ANSWERS = {
    "answered": "completed",
    "refused": "invalid_request",
    "cancelled": "cancelled",
    "poison": "internal_error",
    "in-flight": "completed",
    "parked": "completed",
    "queued": "completed",
    "queued-batch": "completed",
    "queued-invalid": "invalid_request",
    "cancelled-queued": "cancelled",
}


def answers(producer: Producer, stream: str = "responses:results") -> Counter[tuple[str, str]]:
    """Request id, and error code or outcome, of every result."""
    results = producer.entries(stream)
    return Counter(
        (each["request_id"], each["error"]["code"] if each["error"] else each["outcome"]) for each in results
    )


def test_records_with_fewer_or_unknown_fields_are_answered_as_usual(fleet: Fleet, producer: Producer) -> None:
    """Queued, in flight with a lease long over, or parked: as older and newer workers may have left them."""
    for kind in ("fewer-fields", "unknown-fields"):
        restore(producer.redis, RECORDINGS / f"{kind}.json", ago_ms=AT_REST_MS)
    fleet.start()

    results = producer.results(6)

    places = ("queued", "in-flight", "parked")
    expected = [(f"{kind}-{place}", "completed") for kind in ("fewer-fields", "unknown-fields") for place in places]
    assert answers(producer) == Counter(expected)
    tried = {result["request_id"]: [attempt["outcome"] for attempt in result["attempts"]] for result in results}
    assert tried["unknown-fields-in-flight"] == ["interrupted", "completed"]
    assert producer.leftovers() == {}


@pytest.mark.parametrize("release", sorted(path.stem for path in RECORDINGS.glob("[0-9]*.json")))
def test_a_worker_goes_on_where_an_earlier_release_stopped(
    fleet: Fleet, producer: Producer, valkey: redis.Redis, redis_url: str, release: str
) -> None:
    """Everything left is answered once, what was answered stays so, and the commands read all of it."""
    restore(valkey, RECORDINGS / f"{release}.json", ago_ms=AT_REST_MS)
    valkey.delete("responses:reclaimer")  # others ticked until now: no outage that leases must be given time after
    before = json.loads(called("status", "--json", WORKER_REDIS_URL=redis_url).out)
    lanes = {
        name: (sum(lane["ready"].values()), lane["in_flight"], lane["parked"]) for name, lane in before["lanes"].items()
    }
    assert (before["dead"], lanes) == (2, {"interactive": (2, 1, 1), "batch": (2, 1, 0)})

    fleet.start()
    producer.results(len(ANSWERS))
    producer.results(1, stream="responses:results:billing")
    producer.ask(request_id="answered")  # the same body: nothing new
    again = producer.ask()
    producer.results(len(ANSWERS) + 1)

    assert answers(producer) == Counter([*ANSWERS.items(), (again, "completed")])
    assert answers(producer, "responses:results:billing") == Counter([("in-flight-batch", "completed")])
    assert producer.leftovers() == {}
    read = called("results", "--json", WORKER_REDIS_URL=redis_url)
    assert Counter(json.loads(line)["request_id"] for line in read.out.splitlines()) == Counter([*ANSWERS, again])
    letters = called("dead", "list", WORKER_REDIS_URL=redis_url)
    assert (letters.code, "poison" in letters.out, "no id can be read" in letters.out) == (0, True, True)
