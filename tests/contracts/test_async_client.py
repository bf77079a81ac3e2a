"""The behaviour of AsyncResponsesClient that ResponsesClient does not have."""

import asyncio
from typing import Any

from support import published
from support.polling import wait_until
from support.producer import body

from api_contracts.client import AsyncResponsesClient
from api_contracts.queues import request_key


async def test_all_who_wait_share_a_connection(redis_url: str, valkey: Any) -> None:
    """And none of them holds up another."""
    async with AsyncResponsesClient(redis_url) as client:
        tickets = await client.enqueue_many([{"body": body(f"{n}")} for n in range(200)])
        waiting = [asyncio.create_task(client.wait(ticket, timeout_s=30)) for ticket in tickets]
        await asyncio.sleep(0)
        quick = await client.enqueue(body("quick"))
        published.answer(valkey, quick)
        assert (await client.wait(quick, timeout_s=10)).request_id == quick.request_id
        assert len([one for one in valkey.client_list() if "t" in one["flags"]]) == 1
        assert not any(task.done() for task in waiting)

        for ticket in tickets:
            published.answer(valkey, ticket)
        results = await asyncio.gather(*waiting)

    assert [result.request_id for result in results] == [ticket.request_id for ticket in tickets]


async def test_a_reader_that_is_cancelled_leaves_its_entries_to_others(redis_url: str, valkey: Any) -> None:
    """Even one that is cancelled again while it tidies up."""
    async with AsyncResponsesClient(redis_url) as client:
        reading = asyncio.create_task(_read_forever(client))
        await asyncio.to_thread(wait_until, lambda: valkey.exists("responses:results"))
        reading.cancel()
        await asyncio.sleep(0)
        reading.cancel()
        await asyncio.wait([reading])
        tickets = await client.enqueue_many([{"body": body(f"{n}")} for n in range(3)])
        for ticket in tickets:
            published.answer(valkey, ticket)

        read = [result.request_id async for result in client.results("billing", idle_s=0.3)]

    assert read == [ticket.request_id for ticket in tickets]
    assert valkey.xinfo_consumers("responses:results", "billing") == []


async def test_a_wait_that_is_cancelled_leaves_the_others_waiting(redis_url: str, valkey: Any) -> None:
    async with AsyncResponsesClient(redis_url) as client:
        ticket = await client.enqueue(body())
        given_up, waiting = (asyncio.create_task(client.wait(ticket, timeout_s=30)) for _ in range(2))
        await asyncio.to_thread(
            wait_until, lambda: valkey.info("commandstats").get("cmdstat_hmget", {"calls": 0})["calls"] >= 3
        )
        given_up.cancel()
        published.answer(valkey, ticket)

        assert (await waiting).request_id == ticket.request_id
        assert valkey.hget(request_key("default", ticket.request_id), "state") == b"completed"


async def _read_forever(client: AsyncResponsesClient) -> None:
    async for _ in client.results("billing"):
        raise AssertionError("there are none")
