"""Admission is asked ahead of the claim where a call could follow at once, and no permit is kept for nothing."""

import asyncio
from collections import deque
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from support.processor_parts import POLICY, execution_of, interrupted, message, past_attempt, processor, reported
from support.processor_world import World
from support.producer import body

from worker.admission.grants import NotAdmitted, Reason
from worker.queue.claims import Refusal, Standing
from worker.request.admitting import IN_ORDER_S
from worker.request.decisions import Disposition
from worker.request.execution import Interruption


async def process(world: World, raw: bytes | None = None) -> Disposition:
    return await processor(world).process(execution_of(raw))


async def test_a_new_request_is_claimed_admitted_and_begun_at_once() -> None:
    world = World(ahead=True, lease={"begun": True})
    assert await process(world) is Disposition.COMPLETED

    assert world.heard("claim")[0]["begins"]
    assert [name for name in world.names if name in {"admit", "begin"}] == ["admit"]
    assert [each["number"] for each in world.result["attempts"]] == [1]
    assert world.result["attempts"][0]["waited_ms"] == 7
    assert [call is None for call in reported(world)] == [False]


async def test_an_attempt_that_its_claim_did_not_record_is_recorded_before_the_call() -> None:
    world = World(ahead=True)
    assert await process(world) is Disposition.COMPLETED

    assert [name for name in world.names if name in {"admit", "claim", "begin"}].count("admit") == 1
    assert [told["attempt"].number for told in world.heard("begin")] == [1]


async def test_the_question_is_the_same_as_after_the_claim() -> None:
    asks: list[Any] = []
    for ahead in (True, False):
        world = World(ahead=ahead)
        await process(world, message({"tenant": "acme"}))
        asks.append(world.heard("admit")[0]["ask"])

    ahead_of_it, behind_it = asks
    assert (ahead_of_it.tenant, ahead_of_it.tokens, ahead_of_it.body, ahead_of_it.call_kind, ahead_of_it.model) == (
        behind_it.tenant,
        behind_it.tokens,
        behind_it.body,
        behind_it.call_kind,
        behind_it.model,
    )


CHECKED: Any = {"text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}}}}


@pytest.mark.parametrize(
    "raw",
    [
        message({"body": body(**CHECKED)}),
        message({"body": {"model": 5}}),
        message(headers={"eta": (datetime.now(UTC) + timedelta(hours=1)).isoformat()}),
        message({"deadline": (datetime.now(UTC) - timedelta(hours=1)).isoformat()}),
    ],
    ids=["schema", "invalid", "eta", "expired"],
)
async def test_what_may_not_be_called_at_once_waits_for_its_claim(raw: bytes) -> None:
    world = World(ahead=True)
    await processor(world).process(execution_of(raw))

    assert not world.heard("claim")[0]["begins"]
    assert world.names[0] == "claim"


@pytest.mark.parametrize("refusal", [Refusal.DUPLICATE, Refusal.BUSY, Refusal.CONFLICT, Refusal.SUPERSEDED])
async def test_a_refused_claim_gives_its_permit_back(refusal: Refusal) -> None:
    world = World(ahead=True, lease=refusal)
    await process(world)

    assert reported(world) == [None]
    assert world.calls == []


@pytest.mark.parametrize("lease", [{"standing": Standing.CANCELLED}, {"standing": Standing.EXPIRED}])
async def test_a_request_that_is_answered_without_a_call_gives_its_permit_back(lease: Any) -> None:
    world = World(ahead=True, lease=lease)
    assert await process(world) is Disposition.FAILED

    assert reported(world) == [None]


async def test_a_question_without_an_answer_is_withdrawn() -> None:
    world = World(ahead=True, lease=Refusal.DUPLICATE, grants=deque([None]))
    assert await process(world) is Disposition.DUPLICATE

    assert reported(world) == []
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "ahead"]


async def test_a_ledger_that_fails_gives_the_permit_back() -> None:
    world = World(ahead=True)
    world.on_claim = lambda: (_ for _ in ()).throw(RuntimeError("broken"))
    await process(world)

    assert reported(world) == [None]


@pytest.mark.parametrize("lease", [{"attempts": (past_attempt(1, code="upstream_error"),), "failures": 1}, {"own": 1}])
async def test_what_a_retry_met_before_goes_into_its_report(lease: Any) -> None:
    world = World(ahead=True, lease=lease)
    await process(world)

    (told,) = world.heard("report")
    asked = told["reservation"].asked
    assert (asked.failures, asked.own) == (lease.get("failures", 0), lease.get("own", 0))
    assert len(world.heard("admit")) == 1


@pytest.mark.parametrize("lease", [{"failures": 1}, {"crashes": 1}, Refusal.DUPLICATE])
async def test_after_a_request_that_was_not_new_they_ask_in_order_for_a_while(
    lease: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1_000.0]
    monkeypatch.setattr("worker.request.admitting.time.monotonic", lambda: clock[0])
    world = World(ahead=True, lease=lease)
    worker = processor(world, POLICY)
    for step_s in (0.0, IN_ORDER_S - 1, 2.0):
        clock[0] += step_s
        await worker.process(execution_of())

    assert [told["begins"] for told in world.heard("claim")] == [True, False, True]


async def test_a_full_process_asks_in_order() -> None:
    world = World()
    await process(world)

    assert [name for name in world.names if name in {"claim", "admit"}] == ["claim", "admit"]


async def test_who_is_not_admitted_is_answered_as_ever() -> None:
    refused = NotAdmitted(Reason.TIME, 9)
    world = World(ahead=True, grants=deque([refused, refused]))
    assert await process(world) is Disposition.FAILED

    assert world.result["error"]["code"] == "rate_limited"
    assert reported(world) == []


@pytest.mark.parametrize("reason", list(Reason))
async def test_only_a_permit_counts_of_what_was_asked_by_the_clock_of_this_machine(reason: Reason) -> None:
    """The server's may be an hour ahead: then it takes a new request for late."""
    ends_ms = 4_000_000_000_000
    world = World(ahead=True, lease={"deadline_ms": ends_ms}, grants=deque([NotAdmitted(reason, 9)]))
    worker = processor(world)
    assert [await worker.process(execution_of()) for _ in range(2)] == [Disposition.COMPLETED] * 2

    assert [name for name in world.names if name in {"claim", "admit"}] == ["admit", "claim", "admit", "claim", "admit"]
    assert world.heard("admit")[1]["ask"].ends_ms == ends_ms


@pytest.mark.parametrize(
    ("why", "ends"), [(Interruption.DRAINING, Disposition.RELEASED), (Interruption.CANCELLED, Disposition.FAILED)]
)
async def test_a_wait_is_interrupted_as_ever(why: Interruption, ends: Disposition) -> None:
    world = World(ahead=True, grants=deque([None]))

    assert await interrupted(world, why, world.admitting) is ends
    assert world.calls == []
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "ahead"]
