"""The behaviour of both clients, said once: `AsyncResponsesClient` as `ResponsesClient`."""

import logging
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis
import redis.asyncio
from celery import Celery
from support import published
from support.both_clients import KINDS, opened
from support.producer import body
from support.redis_users import url_of, users_of

from api_contracts import ContractViolation
from api_contracts.client import (
    ClientError,
    ConflictError,
    ForgottenError,
    NoAnswerError,
    NotAnsweredError,
    ResponsesClient,
)
from api_contracts.queues import LANES, request_key
from worker.operations.acl import CLIENT

Later = Callable[..., None]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def client(kind: str, redis_url: str) -> Generator[Any]:
    with opened(kind, redis_url, tenant="acme") as client:
        yield client


@pytest.fixture
def later() -> Generator[Later]:
    """Calls a function a moment from now, in another thread."""
    with ThreadPoolExecutor(8) as pool:

        def call(function: Callable[..., Any], *args: Any, **named: Any) -> None:
            pool.submit(lambda: (time.sleep(0.1), function(*args, **named)))

        yield call


def test_an_answer_is_heard_of_at_once(client: Any, valkey: Any, later: Later) -> None:
    """Not looked for: the wait makes as many looks as the request makes moves."""
    ticket = client.enqueue(body())
    later(published.move, valkey, ticket, "running")
    valkey.config_resetstat()
    states: list[str | None] = []

    def answered(state: str | None) -> None:
        states.append(state)
        if state == "running":
            later(published.answer, valkey, ticket)

    result = client.wait(ticket, timeout_s=10, on_state=answered)

    assert result.request_id == ticket.request_id
    assert states == [None, "running"]
    assert valkey.info("commandstats")["cmdstat_hmget"]["calls"] <= 4


def test_many_answers_in_the_order_of_their_tickets(client: Any, valkey: Any, later: Later) -> None:
    tickets = client.enqueue_many([{"body": body(f"{n}")} for n in range(5)])
    for ticket in reversed(tickets):
        later(published.answer, valkey, ticket)

    results = client.wait_many(tickets, timeout_s=10)

    assert [result.request_id for result in results] == [ticket.request_id for ticket in tickets]


def test_what_has_no_answer_is_told_by_type(client: Any, valkey: Any) -> None:
    """One error stands for each; all are of the client."""
    open_, taken, forgotten, good = client.enqueue_many([{"body": body(f"{n}")} for n in range(4)])
    other = client.enqueue(body("another"), request_id=good.request_id)
    published.move(valkey, taken, "running")
    published.answer(valkey, forgotten)
    valkey.hdel(request_key("acme", forgotten.request_id), "result")
    published.answer(valkey, good)

    tickets = [open_, taken, forgotten, good, other]
    outcomes = client.wait_many(tickets, timeout_s=0.1, return_exceptions=True)

    assert [type(outcome).__name__ for outcome in outcomes] == [
        "NotAnsweredError",
        "NotAnsweredError",
        "ForgottenError",
        "GenerationResult",
        "ConflictError",
    ]
    assert [outcome.state for outcome in outcomes[:2]] == [None, "running"]
    with pytest.raises(NotAnsweredError):
        client.wait_many(tickets, timeout_s=0)
    with pytest.raises(ConflictError):
        client.wait(other, timeout_s=0)
    assert issubclass(ForgottenError, NoAnswerError)
    assert issubclass(NoAnswerError, ClientError)


def test_an_unknown_field_of_the_envelope_is_refused_with_the_nearest(client: Any, valkey: Any) -> None:
    with pytest.raises(ContractViolation, match="dedline is not a known name; did you mean deadline"):
        client.enqueue(body(), dedline="2026-01-01T00:00:00Z")

    assert valkey.keys() == []


def test_a_lane_that_nobody_serves_is_warned_of_once(
    client: Any, valkey: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The request is enqueued all the same: workers may come."""
    valkey.zadd(LANES, {"batch": time.time() * 1000})
    with caplog.at_level(logging.WARNING, "api_contracts"):
        client.enqueue(body(), lane="batch")
        client.enqueue(body(), lane="btach")
        client.enqueue(body(), lane="btach")

    assert [record.getMessage() for record in caplog.records] == [
        "no worker serves lane btach at the moment; requests on it wait until one does"
    ]
    assert valkey.llen("responses.btach") == 2


@pytest.mark.parametrize(
    "options", [{"decode_responses": True}, {"protocol": 2}, {"decode_responses": True, "protocol": 2}]
)
def test_a_client_of_the_callers_own(kind: str, redis_url: str, valkey: Any, later: Later, options: Any) -> None:
    """It may decode replies or not; it stays open, and the connections that were added to it go."""
    module: Any = redis if kind == "blocking" else redis.asyncio
    own = module.Redis.from_url(redis_url, **options)
    with opened(kind, own) as client:
        ticket = client.enqueue(body(stream=True))
        later(published.answer, valkey, ticket)
        assert client.wait(ticket, timeout_s=10).request_id == ticket.request_id
        for result in client.results("billing", idle_s=0.2):
            assert result.request_id == ticket.request_id
        published.stream(valkey, ticket, 1)
        published.stream(valkey, ticket, 2, "finished")
        assert [delta.type for delta in client.deltas(ticket)][-1] == "finished"
        client.cancel(ticket.request_id)


def test_a_client_of_the_other_kind_is_refused(kind: str, redis_url: str) -> None:
    module: Any = redis.asyncio if kind == "blocking" else redis
    with pytest.raises(TypeError, match="use AsyncResponsesClient" if kind == "blocking" else "use ResponsesClient"):
        opened(kind, module.Redis.from_url(redis_url)).__enter__()


def test_a_client_that_prefixes_keys_is_refused(redis_url: str) -> None:
    """As Celery has one where its `broker_transport_options` say so."""
    app: Any = Celery(broker=redis_url)
    app.conf.broker_transport_options = {"global_keyprefix": "shop:"}
    with (
        app.connection_for_write() as connection,
        pytest.raises(ValueError, match="without global_keyprefix: workers read plain keys"),
    ):
        ResponsesClient(connection.default_channel.client)


def test_deltas_come_as_they_are_written(client: Any, valkey: Any, later: Later) -> None:
    ticket = client.enqueue(body(stream=True))
    later(published.move, valkey, ticket, "running")
    later(published.stream, valkey, ticket, 1)
    deltas = client.deltas(ticket, timeout_s=10)

    first = next(deltas)
    later(published.stream, valkey, ticket, 2, "finished")
    (last,) = deltas

    assert (first.type, last.type) == ("response.output_text.delta", "finished")


def test_a_silent_connection_is_asked_whether_it_lives(
    client: Any, valkey: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a caller waits for longer than that."""
    for module in ("blocking", "asynchronous", "async_link"):
        monkeypatch.setattr(f"api_contracts.client.{module}.CHECK_S", 0.05)
    ticket = client.enqueue(body())
    valkey.config_resetstat()

    with pytest.raises(NotAnsweredError):
        client.wait(ticket, timeout_s=0.5)

    assert valkey.info("commandstats")["cmdstat_ping"]["calls"] >= 3


def test_a_wait_outlives_its_connection(client: Any, valkey: Any, later: Later) -> None:
    """Redis closes every connection but the one that says so, and the answer comes after that."""
    ticket = client.enqueue(body())

    def cut_and_answered() -> None:
        valkey.client_kill_filter(_type="normal", skipme=True)
        later(published.answer, valkey, ticket)

    later(cut_and_answered)

    assert client.wait(ticket, timeout_s=10).request_id == ticket.request_id


def test_where_redis_does_not_push_callers_look_for_themselves(
    kind: str, redis_url: str, valkey: Any, later: Later, caplog: pytest.LogCaptureFixture
) -> None:
    """As for a user whose rules are of an older release."""
    with users_of(valkey, CLIENT):
        valkey.execute_command("ACL", "SETUSER", CLIENT.name, "-client|tracking")
        with opened(kind, url_of(CLIENT, redis_url)) as client:
            ticket = client.enqueue(body())
            later(published.answer, valkey, ticket)

            assert client.wait(ticket, timeout_s=10).request_id == ticket.request_id

    assert "Redis does not push changes" in caplog.text


def test_so_many_results_at_once_and_each_acknowledged_by_hand(client: Any, valkey: Any) -> None:
    """The iterator waits for room, and what was not acknowledged comes again."""
    tickets = client.enqueue_many([{"body": body(f"{n}")} for n in range(5)])
    for ticket in tickets:
        published.answer(valkey, ticket)
    results = client.results("billing", consumer="one", concurrency=2, idle_s=0.5)
    first, second = next(results), next(results)
    with ThreadPoolExecutor(1) as pool:
        third = pool.submit(next, results)
        time.sleep(0.2)
        assert not third.done()
        client.acknowledge(first)
        assert third.result(timeout=5).request_id == tickets[2].request_id
    client.acknowledge(third.result())
    fourth = next(results)
    results.close()
    client.acknowledge(fourth)

    left = [result.request_id for result in client.results("billing", consumer="two", idle_s=0.3, take_over=True)]

    assert left == [second.request_id, tickets[4].request_id]


def test_a_reader_that_is_closed_leaves_nothing_behind(client: Any, valkey: Any) -> None:
    """Others get at once the entries that it read and did not hand out, and no consumer of a made-up name is left."""
    tickets = client.enqueue_many([{"body": body(f"{n}")} for n in range(5)])
    for ticket in tickets:
        published.answer(valkey, ticket)
    closed = client.results("billing")
    assert next(closed).request_id == tickets[0].request_id
    closed.close()

    others = [result.request_id for result in client.results("billing", idle_s=0.3)]

    assert others == [ticket.request_id for ticket in tickets[1:]]
    assert [one["name"] for one in valkey.xinfo_consumers("responses:results", "billing")] == [b"left-behind"]
    assert valkey.xpending("responses:results", "billing")["pending"] == 1  # which it had handed out
