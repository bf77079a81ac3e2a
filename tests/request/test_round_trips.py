"""The round trips to Redis of one request, with a real ledger and a real budget."""

from typing import Any

import redis
from support.admission_queue_parts import opened
from support.processor_parts import POLICY, message
from support.processor_world import World

from worker.queue.ledger import Ledger
from worker.request.decisions import Disposition
from worker.request.execution import Execution
from worker.request.processor import Processor


async def test_a_lone_request_takes_one_to_start_and_one_to_end(valkey: redis.Redis, redis_url: str) -> None:
    """The first opens connections and loads scripts."""
    server: Any = valkey
    async with opened(valkey, redis_url) as rooms:
        ledger, world, trips = Ledger(rooms.runner), World(), list[int]()
        processor = Processor(ledger, rooms.rooms, rooms.rooms, world, world, POLICY, world.events)
        for number in range(3):
            server.lpush("responses.interactive", message({"request_id": f"r-{number}"}))
            (delivery,) = (await ledger.pop({"interactive": 1})).deliveries
            before = server.info("stats")["total_reads_processed"]
            assert await processor.process(Execution(delivery)) is Disposition.COMPLETED
            trips.append(server.info("stats")["total_reads_processed"] - before - 1)

    assert trips[1:] == [2, 2]
    assert server.zcard("responses:permits:default") == server.hlen("responses:inflight:interactive") == 0
