"""A request that waits keeps its body once, whatever its size: neither its message nor a buffer larger than it."""

import asyncio
import tracemalloc
from collections import deque
from dataclasses import replace
from typing import Final

import pytest
from support.processor_parts import POLICY, execution_of, message, processor
from support.processor_world import World
from support.producer import body

from worker.request.execution import Interruption

PARTS: Final = 100_000
"""Bytes of all that is small."""


@pytest.mark.parametrize("size", [300_000, 1_000_000, 3_000_000])
@pytest.mark.parametrize("waits_for", ["a grant", "its answer"])
async def test_a_waiting_request_holds_its_body_once(size: int, waits_for: str) -> None:
    world = World(grants=deque([None] if waits_for == "a grant" else []), outcomes=deque([None]))
    policy = replace(POLICY, max_body=2 * size)
    tracemalloc.start()
    execution = execution_of(message({"body": body("x" * size)}))
    running = asyncio.create_task(processor(world, policy).process(execution))
    await (world.admitting if waits_for == "a grant" else world.calling).wait()

    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    execution.interrupt(Interruption.CANCELLED)
    await running
    assert size < held < 1.05 * size + PARTS
