"""Three cells, each a Valkey of its own: requests are spread by their ids, answers come together."""

import threading
from collections.abc import Generator
from contextlib import ExitStack
from typing import Any

import pytest
import redis
from support import published
from support.both_clients import KINDS, opened
from support.producer import body

from api_contracts.client.routing import cell_of
from api_contracts.queues import cancel_key, request_key
from worker.devtools.devstack import embedded_valkey


@pytest.fixture(scope="module")
def urls() -> Generator[list[str]]:
    with ExitStack() as stack:
        yield [stack.enter_context(embedded_valkey()).url for _ in range(3)]


@pytest.fixture
def cells(urls: list[str]) -> Generator[list[Any]]:
    """Empty."""
    clients: list[Any] = [redis.Redis.from_url(url) for url in urls]  # pyright: ignore[reportUnknownMemberType]  # untyped kwargs
    for client in clients:
        client.flushall()
    yield clients
    for client in clients:
        client.close()


@pytest.fixture(params=KINDS)
def client(request: pytest.FixtureRequest, urls: list[str]) -> Generator[Any]:
    with opened(request.param, urls) as client:
        yield client


def test_a_request_goes_to_the_cell_of_its_tenant_and_id(client: Any, cells: list[Any]) -> None:
    """And its cancellation too; each cell gets its share, and a new one moves no id between the others."""
    tickets = client.enqueue_many([{"body": body(f"{n}")} for n in range(90)])
    homes = [cell_of("default", ticket.request_id, 3) for ticket in tickets]
    client.cancel(tickets[0].request_id)

    assert [cell.llen("responses.interactive") for cell in cells] == [homes.count(n) for n in range(3)]
    assert min(homes.count(n) for n in range(3)) > 10
    assert cells[homes[0]].exists(cancel_key("default", tickets[0].request_id))
    assert {cell_of("default", ticket.request_id, 4) for ticket in tickets} == {0, 1, 2, 3}
    for ticket, home in zip(tickets, homes, strict=True):
        assert cell_of("default", ticket.request_id, 4) in {home, 3}


def test_answers_of_all_cells_come_together(client: Any, cells: list[Any]) -> None:
    """By ticket, and to a group: a result is heard of when it comes, whichever cell it comes to."""
    tickets = client.enqueue_many([{"body": body(f"{n}")} for n in range(30)])

    def answered() -> None:
        for ticket in tickets:
            published.answer(cells[cell_of("default", ticket.request_id, 3)], ticket)

    threading.Timer(0.2, answered).start()
    results = client.wait_many(tickets, timeout_s=10)
    read = [result.request_id for result in client.results("billing", idle_s=0.5)]

    assert [result.request_id for result in results] == [ticket.request_id for ticket in tickets]
    assert sorted(read) == sorted(ticket.request_id for ticket in tickets)
    assert [cell.xpending("responses:results", "billing")["pending"] for cell in cells] == [0, 0, 0]


def test_a_group_is_told_of_a_result_in_any_cell(client: Any, cells: list[Any]) -> None:
    """Its reader sleeps until then: Redis hears from it about once a second."""
    ticket = client.enqueue(body())
    home = cells[cell_of("default", ticket.request_id, 3)]
    threading.Timer(0.5, published.answer, (home, ticket)).start()
    home.config_resetstat()

    results = client.results("billing", consumer="one", concurrency=3)
    result = next(results)
    client.acknowledge(result)
    results.close()

    assert result.request_id == ticket.request_id
    assert home.info("commandstats")["cmdstat_xreadgroup"]["calls"] < 10
    assert home.xpending("responses:results", "billing")["pending"] == 0


def test_tokens_come_from_the_cell_of_their_request(client: Any, cells: list[Any]) -> None:
    ticket = client.enqueue(body(stream=True))
    home = cells[cell_of("default", ticket.request_id, 3)]
    published.stream(home, ticket, 1)
    published.stream(home, ticket, 2, "finished")
    published.answer(home, ticket)

    assert [delta.type for delta in client.deltas(ticket)] == ["response.output_text.delta", "finished"]
    assert home.exists(request_key("default", ticket.request_id))
