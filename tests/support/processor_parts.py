"""A processor in a world that plays its ports, with the messages it takes and the facts it leaves."""

import asyncio
import base64
import json
import random
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

from api_contracts import ErrorCode
from support.processor_world import World, WorldsAdmission
from support.producer import body
from worker.failures.failure import Failure
from worker.queue.attempts import AttemptOutcome, AttemptRecord
from worker.queue.claims import Delivery
from worker.request.decisions import Disposition
from worker.request.execution import Execution, Interruption
from worker.request.policy import Policy
from worker.request.processor import Processor
from worker.storage.scripts import ScriptError


def message(envelope: Any = None, headers: Mapping[str, Any] | None = None) -> bytes:
    """As Celery writes it."""
    arguments: list[Any] = [[{"body": body(), **(envelope or {})}], {}, {}]
    return json.dumps(
        {
            "body": base64.b64encode(json.dumps(arguments).encode()).decode(),
            "content-type": "application/json",
            "headers": {"task": "responses.create", "id": "task-1", **(headers or {})},
            "properties": {"correlation_id": "task-1", "body_encoding": "base64"},
        }
    ).encode()


POLICY: Final = Policy(
    max_body=100_000,
    max_attempts=3,
    timeout=timedelta(seconds=30),
    default_deadline={"*": timedelta(hours=1)},
    result_ttl=timedelta(hours=1),
    patience={"interactive": timedelta(seconds=30), "batch": None},
)


def processor(world: World, policy: Policy = POLICY) -> Processor:
    return Processor(
        ledger=world,
        queues=world,
        admission=WorldsAdmission(world),
        upstream=world,
        relay=world,
        policy=policy,
        events=world.events,
        rng=random.Random(1),
    )


def execution_of(raw: bytes | None = None, *, name: str = "t", lane: str = "interactive") -> Execution:
    return Execution(Delivery(name, lane, message() if raw is None else raw))


async def process(world: World, raw: bytes | None = None, *, lane: str = "interactive") -> Disposition:
    return await processor(world).process(execution_of(raw, lane=lane))


async def process_with(
    policy: Policy, raw: bytes | None = None, *, lane: str = "interactive", lease: Any = None
) -> World:
    """A world in which one delivery was processed by `policy`."""
    world = World(lease=lease)
    await processor(world, policy).process(execution_of(raw, lane=lane))
    return world


async def interrupted(world: World, why: Interruption, at: asyncio.Event, raw: bytes | None = None) -> Disposition:
    """Stopped as soon as it is there."""
    execution = execution_of(raw)
    task = asyncio.create_task(processor(world).process(execution))
    await at.wait()
    await asyncio.sleep(0)
    execution.interrupt(why)
    return await asyncio.wait_for(task, 5)


def failing(code: ErrorCode, **changes: Any) -> Failure:
    return replace(Failure.of(code), **changes)


def reported(world: World) -> list[Any]:
    """The call that admission was told of, after each grant; None where none was made."""
    return [told["call"] for told in world.heard("report")]


def attempts(world: World) -> list[tuple[str, str | None, bool]]:
    """Outcome, code and maybe_billed of each attempt of the published result."""
    return [(each["outcome"], each["code"], each["maybe_billed"]) for each in world.result["attempts"]]


def past_attempt(number: int, outcome: AttemptOutcome = "failed", code: str | None = None) -> bytes:
    return AttemptRecord(number=number, outcome=outcome, duration_ms=3, code=code).encode()


def refuse() -> None:
    raise ScriptError("OOM")
