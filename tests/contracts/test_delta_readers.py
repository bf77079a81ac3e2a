"""Readers of tokens, in both clients: what Redis pushes is read once, and nothing is waited for that cannot come."""

import threading
import time
from collections.abc import Callable, Generator
from typing import Any

import pytest
from support import published
from support.both_clients import KINDS, opened
from support.producer import body

from api_contracts.client import NoAnswerError, Ticket
from api_contracts.client.streaming import PAGE

TIMEOUT_S = 30


@pytest.fixture(params=KINDS)
def client(request: pytest.FixtureRequest, redis_url: str) -> Generator[Any]:
    with opened(request.param, redis_url) as client:
        yield client


@pytest.fixture(autouse=True)
def prompt() -> Generator[None]:
    """No reader waits for the end of its own time to look once more."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < TIMEOUT_S / 3


@pytest.fixture
def ticket(client: Any, valkey: Any) -> Ticket:
    """Of a request that a worker has taken."""
    ticket = client.enqueue(body(stream=True))
    published.move(valkey, ticket, "running")
    return ticket


Later = Callable[..., None]


@pytest.fixture
def later(valkey: Any) -> Generator[Later]:
    """Takes steps in a thread, each a moment after the one before is done."""
    assert valkey.ping()
    threads: list[threading.Timer] = []

    def take(*steps: Callable[[], Any]) -> None:
        for step in steps:
            threads.append(threading.Timer(0.1, step))
            threads[-1].start()
            threads[-1].join()

    def later(*steps: Callable[[], Any]) -> None:
        threads.append(threading.Timer(0, take, steps))
        threads[-1].start()

    yield later
    for thread in threads:
        thread.join()


def test_a_reader_outlives_its_connection(client: Any, valkey: Any, ticket: Ticket, later: Later) -> None:
    """Redis closes every connection but the one that says so; one token comes before the next look, one after it."""
    published.stream(valkey, ticket, 1)
    deltas = client.deltas(ticket, timeout_s=TIMEOUT_S)
    read = [next(deltas).id]

    later(
        lambda: valkey.client_kill_filter(_type="normal", skipme=True),
        lambda: published.stream(valkey, ticket, 2),
        lambda: published.stream(valkey, ticket, 3, "finished"),
    )

    read += [delta.id for delta in deltas]
    assert read[:2] == ["1-1", "1-2"]
    assert len(read) == 3


def test_more_than_a_page_is_read_to_its_end(client: Any, valkey: Any, ticket: Ticket) -> None:
    for number in range(1, 2 * PAGE + 2):
        published.stream(valkey, ticket, number)
    published.stream(valkey, ticket, 0, "finished")

    read = list(client.deltas(ticket, timeout_s=TIMEOUT_S))

    assert [delta.id for delta in read[:-1]] == [f"1-{number}" for number in range(1, 2 * PAGE + 2)]
    assert read[-1].type == "finished"


def test_an_end_that_nothing_streams_ends_the_reading(client: Any, valkey: Any, ticket: Ticket, later: Later) -> None:
    """The entry `finished` was lost, with its stream or in a failover."""
    published.stream(valkey, ticket, 1)
    deltas = client.deltas(ticket, timeout_s=TIMEOUT_S)
    assert next(deltas).id == "1-1"
    later(lambda: published.answer(valkey, ticket))

    with pytest.raises(NoAnswerError):
        next(deltas)
