"""The Python client: what a service that enqueues can rely on."""

import json
import subprocess
import sys
from collections.abc import Generator
from typing import Any

import pytest
from support.polling import wait_until
from support.producer import Producer, body
from support.worker_process import Fleet

from api_contracts import ContractViolation
from api_contracts.celery_messages import encode
from api_contracts.client import BackloggedError, NoAnswerError, NotAnsweredError, ResponsesClient
from api_contracts.outgoing import strict_json
from api_contracts.queues import UNREADABLE_STREAM, lane_list
from worker.devtools.devstack import Simulator
from worker.queue.messages import Message, decode


@pytest.fixture
def client(redis_url: str) -> Generator[ResponsesClient]:
    with ResponsesClient(redis_url, tenant="acme") as client:
        yield client


def test_enqueue_and_wait(fleet: Fleet, client: ResponsesClient) -> None:
    """Three lines from a question to an answer."""
    fleet.start()

    ticket = client.enqueue(body("Grüße, 世界!"), metadata={"order": "17"})
    result = client.wait(ticket, timeout_s=10)

    assert result.response is not None
    assert result.response.output_text == "Echo: Grüße, 世界!"
    assert (result.tenant, result.metadata) == ("acme", {"order": "17"})


def test_many_at_once_are_answered_once_each(fleet: Fleet, client: ResponsesClient, producer: Producer) -> None:
    """A thousand requests go out in two round trips and come back as a thousand results, shared by a group."""
    fleet.start()

    tickets = client.enqueue_many(({"body": body(f"{n}")} for n in range(1000)), lane="batch")
    mine = {result.request_id for result in client.results("billing", consumer="a", idle_s=3)}

    assert mine == {ticket.request_id for ticket in tickets}
    assert producer.redis.xpending("responses:results", "billing")["pending"] == 0


def test_two_consumers_share_without_overlap(client: ResponsesClient, fleet: Fleet) -> None:
    """Of one group, each result goes to one."""
    fleet.start()
    one, two = client.results("shop", consumer="one"), client.results("shop", consumer="two")
    client.enqueue_many({"body": body(f"{n}")} for n in range(40))

    seen = [next(one).request_id for _ in range(5)] + [next(two).request_id for _ in range(5)]

    assert len(set(seen)) == 10


def test_a_result_that_was_not_acknowledged_comes_again(client: ResponsesClient, fleet: Fleet) -> None:
    """A consumer that dies between read and acknowledgement loses nothing."""
    fleet.start()
    ticket = client.enqueue(body())
    dies = client.results("shop", consumer="dies")
    assert next(dies).request_id == ticket.request_id
    dies.close()  # as a crash would: the loop body never ended

    again = next(client.results("shop", consumer="lives", abandoned_s=0))

    assert again.request_id == ticket.request_id


def test_what_a_worker_would_refuse_is_not_sent(client: ResponsesClient, producer: Producer) -> None:
    """The contract is checked before anything of a batch leaves."""
    with pytest.raises(ContractViolation):
        client.enqueue_many([{"body": body()}, {"body": body(temprature=1)}])

    assert producer.leftovers() == {}


@pytest.mark.parametrize(
    ("envelope", "field"),
    [
        ({"body": body(top_p=float("nan"))}, "body.top_p"),
        ({"body": body(tools=[{"limit": float("inf")}])}, "body"),
        ({"body": body("\ud800")}, "body"),
        ({"body": body(tools=[{"when": {1, 2}}])}, "body"),
        ({"body": body(tools=[{"deep": json.loads("[" * 200 + "]" * 200)}])}, "body"),
        ({"body": body(tools=[{}] * 30_000)}, "body"),
        ({"body": body("x" * 5_000_000)}, "body"),
        ({"body": body(), "enqueued_at": "0001-01-01T00:00:00Z"}, "enqueued_at"),
        ({"body": body(), "deadline": "9999-12-31T00:00:00Z"}, "deadline"),
        ({"body": body(), "metadata": {str(n): "" for n in range(9_000)}}, "metadata"),
    ],
)
def test_what_no_worker_could_read_is_not_sent_either(
    client: ResponsesClient, producer: Producer, envelope: dict[str, Any], field: str
) -> None:
    with pytest.raises(ContractViolation) as refused:
        client.enqueue_many([envelope])

    assert refused.value.violations[0].field == field
    assert producer.leftovers() == {}


def test_a_lane_full_of_large_messages_says_so(redis_url: str) -> None:
    with ResponsesClient(redis_url, backlog_bytes=100_000) as client:
        client.enqueue_many([{"body": body("x" * 50_000)}] * 3)

        with pytest.raises(BackloggedError, match=r"holds \d{6} bytes, the limit is 100000"):
            client.enqueue(body())


@pytest.mark.parametrize(
    "entry", [{"result": "{}"}, {"result": "\x00"}, {"other": "1"}, {"result": '{"timing":{"enqueued_at":"1-1-1"}}'}]
)
def test_an_entry_that_cannot_be_read_stops_nobody(
    client: ResponsesClient, fleet: Fleet, producer: Producer, entry: dict[str, str]
) -> None:
    """It is kept aside with where it was, acknowledged, and the next result comes."""
    entry_id = producer.redis.xadd("responses:results", entry)
    fleet.start()
    ticket = client.enqueue(body())

    result = next(reading := client.results("shop", idle_s=10))
    reading.close()

    ((_, kept),) = producer.redis.xrange(UNREADABLE_STREAM)
    assert result.request_id == ticket.request_id
    assert (kept[b"stream"], kept[b"group"], kept[b"entry"]) == (b"responses:results", b"shop", entry_id)
    assert producer.redis.xpending("responses:results", "shop")["pending"] == 1  # the good one: its reader stopped


def test_a_full_lane_says_so(redis_url: str) -> None:
    """Backpressure reaches whoever floods."""
    with ResponsesClient(redis_url, backlog_limit=3) as client:
        client.enqueue_many([{"body": body()}] * 3)

        with pytest.raises(BackloggedError, match="lane interactive would hold 4 messages, the limit is 3"):
            client.enqueue(body())


def test_waiting_ends(client: ResponsesClient) -> None:
    """With no worker anywhere, the wait is as long as was asked."""
    ticket = client.enqueue(body())

    with pytest.raises(NotAnsweredError):
        client.wait(ticket, timeout_s=0.1)


def test_the_wait_of_a_conflicting_request_is_refused(client: ResponsesClient, fleet: Fleet) -> None:
    """Nobody is handed the answer to somebody else's question."""
    fleet.start()
    client.wait(client.enqueue(body("first"), request_id="one"), timeout_s=10)

    ticket = client.enqueue(body("second"), request_id="one")

    with pytest.raises(NoAnswerError, match="duplicate_conflict"):
        client.wait(ticket, timeout_s=10)


def test_cancel_queued_parked_and_in_flight(client: ResponsesClient, fleet: Fleet, gateway: Simulator) -> None:
    """One `cancelled` result each; what was never called is not paid for."""
    queued = client.enqueue(body("queued"))
    client.cancel(queued.request_id)
    fleet.start(concurrency=2)
    parked = client.enqueue(body("[[sim:503=30]]"))
    wait_until(lambda: len(gateway.calls()) == 1, what="the call that fails")
    flying = client.enqueue(body("[[sim:slow=30]]"))
    wait_until(lambda: len(gateway.calls()) == 2, what="the call in flight")

    client.cancel(parked.request_id)
    client.cancel(flying.request_id)
    results = [client.wait(ticket, timeout_s=5) for ticket in (queued, parked, flying)]

    assert [result.error.code if result.error else None for result in results] == ["cancelled"] * 3
    assert len(gateway.calls()) == 2


def test_deltas_as_they_come_and_from_where_one_left(client: ResponsesClient, fleet: Fleet) -> None:
    """Joined, the deltas are the text; a reader resumes behind the last id it saw."""
    fleet.start()
    ticket = client.enqueue(body("Tell me a story of many words, please.", stream=True))

    deltas = list(client.deltas(ticket.request_id, timeout_s=10))
    rest = list(client.deltas(ticket.request_id, after=deltas[3].id, timeout_s=10))
    result = client.wait(ticket, timeout_s=5)

    text = "".join(json.loads(d.data)["delta"] for d in deltas if d.type == "response.output_text.delta")
    assert result.response is not None
    assert text == result.response.output_text
    assert rest == deltas[4:]
    assert deltas[-1].type == "finished"


def test_deltas_by_ticket_are_never_those_of_an_earlier_run(client: ResponsesClient, fleet: Fleet) -> None:
    """Earlier deltas are still there, under the same id, until a worker takes the new one."""
    worker, cut = fleet.start(max_attempts=1), body("Once upon a time [[sim:cut]]", stream=True)
    failed = client.wait(client.enqueue(cut, request_id="one"), timeout_s=10)
    worker.kill()

    again = client.enqueue(cut, request_id="one")

    assert failed.error is not None
    assert failed.error.retryable
    assert next(client.deltas("one")).type == "response.created"
    with pytest.raises(NotAnsweredError):
        next(client.deltas(again, timeout_s=0.1))


def test_there_is_no_waiting_for_deltas_that_cannot_come(client: ResponsesClient, fleet: Fleet) -> None:
    """Of a request that was answered without any."""
    fleet.start()
    ticket = client.enqueue(body())

    with pytest.raises(NoAnswerError):
        next(client.deltas(ticket))


def test_a_message_of_ours_is_a_celery_message() -> None:
    """Encoded without Celery, read as if Celery had written it."""
    envelope: dict[str, Any] = {"body": body("Grüße"), "request_id": "r-1"}

    decoded = decode(encode(strict_json(envelope), task_id="t-1", lane="batch"), max_body=10_000)

    assert isinstance(decoded, Message)
    assert (decoded.task_id, decoded.request_id, decoded.violations) == ("t-1", "r-1", ())
    assert lane_list("batch", 5) == "responses.batch\x06\x163"


def test_the_client_brings_no_worker() -> None:
    """A service that enqueues pays for pydantic and redis, not for Celery, httpx or Sentry."""
    script = "import sys, api_contracts.client; print(*sorted(m for m in sys.modules if '.' not in m))"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()

    assert not {"celery", "kombu", "httpx", "aiohttp", "orjson", "structlog", "sentry_sdk", "worker"} & set(loaded)
