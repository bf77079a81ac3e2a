"""A failure of one route: the request goes on by another at once, keeping its charges, or does what it always did."""

import asyncio
import json
from collections import deque
from dataclasses import replace
from typing import Any, Final

import pytest
from support.processor_parts import POLICY, attempts, execution_of, failing, message, past_attempt, processor
from support.processor_world import ANSWER, MINUTE_MS, World
from support.producer import body

from api_contracts import ErrorCode
from worker.admission.grants import NotAdmitted, Reason
from worker.failures.failure import Failure
from worker.request.decisions import Disposition
from worker.request.execution import Interruption
from worker.request.routes import RouteMap

TWO: Final = RouteMap({"first": "main", "second": "spare"}, {"first": None, "second": None})
SHARED: Final = RouteMap({"first": "main", "second": "main"}, {"first": None, "second": None})
LATER: Final = NotAdmitted(Reason.LATER, 0)
UNAVAILABLE: Final = failing(ErrorCode.UPSTREAM_ERROR, http_status=503)
MOVING: Final = [
    ErrorCode.UPSTREAM_ERROR,
    ErrorCode.UPSTREAM_OVERLOADED,
    ErrorCode.UPSTREAM_TIMEOUT,
    ErrorCode.UPSTREAM_UNREACHABLE,
    ErrorCode.INVALID_RESPONSE,
    ErrorCode.AUTHENTICATION_FAILED,
    ErrorCode.QUOTA_EXHAUSTED,
    ErrorCode.RATE_LIMITED,
    ErrorCode.MODEL_UNAVAILABLE,
    ErrorCode.PERMISSION_DENIED,
]
STAYING: Final = [ErrorCode.INVALID_REQUEST, ErrorCode.CONTENT_REJECTED, ErrorCode.CONTEXT_LENGTH_EXCEEDED]


def world_of(*outcomes: Any, via: tuple[str, ...] = ("first", "second"), **said: Any) -> World:
    return World(outcomes=deque(outcomes), via=deque(via), **said)


def process(world: World, routes: RouteMap = TWO, raw: bytes | None = None) -> Disposition:
    return asyncio.run(processor(world, replace(POLICY, routes=routes)).process(execution_of(raw)))


def asks(world: World) -> list[tuple[dict[str, int], bool]]:
    """The routes that the request had tried, and whether it moves, each time that it asked."""
    return [(dict(told["ask"].tried), told["ask"].moving) for told in world.heard("admit")]


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "alone"])
@pytest.mark.parametrize("code", MOVING)
def test_it_goes_on_by_another_route_at_once(code: ErrorCode, shared: bool) -> None:  # noqa: FBT001  # drawn, not passed
    world = world_of(failing(code), ANSWER, shared=shared)

    disposition = process(world)

    if shared and code is ErrorCode.RATE_LIMITED:  # then the account waits, and admission itself goes elsewhere
        assert disposition is Disposition.COMPLETED
        return
    assert disposition is Disposition.COMPLETED
    assert [attempt["upstream"] for attempt in world.result["attempts"]] == ["first", "second"]
    assert [moving for _, moving in asks(world)] == [False, True]
    assert world.heard("park") == []


@pytest.mark.parametrize("code", STAYING)
def test_what_is_the_requests_own_fault_goes_nowhere_else(code: ErrorCode) -> None:
    world = world_of(failing(code))

    assert process(world) is Disposition.FAILED
    assert world.routes == ["first"]


def test_an_attempt_is_spent_and_no_time_is() -> None:
    world = world_of(UNAVAILABLE, UNAVAILABLE, LATER)
    world.grants = deque(["", "", LATER])

    assert process(world) is Disposition.RETRY_SCHEDULED

    (park,) = world.heard("park")
    assert park["failures"] == 2
    assert world.routes == ["first", "second"]


def test_it_does_what_it_always_did_where_no_other_route_is_in_order() -> None:
    world = world_of(UNAVAILABLE)
    world.grants = deque(["", LATER])

    assert process(world) is Disposition.RETRY_SCHEDULED
    assert asks(world) == [({}, False), ({"first": 1}, True)]


def test_a_final_answer_of_the_only_route_in_order_stands() -> None:
    world = world_of(failing(ErrorCode.MODEL_UNAVAILABLE))
    world.grants = deque(["", LATER])

    assert process(world) is Disposition.FAILED
    assert world.result["error"]["code"] == "model_unavailable"


@pytest.mark.parametrize("code", [ErrorCode.RATE_LIMITED, ErrorCode.QUOTA_EXHAUSTED])
def test_a_refusal_of_the_account_does_not_move_within_it(code: ErrorCode) -> None:
    world = world_of(failing(code), shared=False)

    assert process(world, SHARED) in (Disposition.RETRY_SCHEDULED, Disposition.FAILED)
    assert world.routes == ["first"]


def test_a_route_that_does_not_serve_the_model_is_no_other_route() -> None:
    elsewhere = RouteMap(TWO.accounts, {"first": None, "second": {"another"}})
    world = world_of(UNAVAILABLE)

    assert process(world, elsewhere) is Disposition.RETRY_SCHEDULED
    assert world.routes == ["first"]


def test_attempts_are_bounded_across_routes() -> None:
    many = RouteMap({f"r{n}": f"a{n}" for n in range(9)}, {f"r{n}": None for n in range(9)})
    world = world_of(*[UNAVAILABLE] * 9, via=tuple(f"r{n}" for n in range(9)))

    assert process(world, many) is Disposition.FAILED
    assert len(world.routes) == POLICY.max_attempts


def test_calls_that_may_have_been_billed_are_two_across_routes() -> None:
    timed_out = Failure.of(ErrorCode.UPSTREAM_TIMEOUT)
    many = RouteMap({f"r{n}": f"a{n}" for n in range(9)}, {f"r{n}": None for n in range(9)})
    world = world_of(*[timed_out] * 9, via=tuple(f"r{n}" for n in range(9)))

    assert process(world, many) is Disposition.FAILED
    assert attempts(world) == [("failed", "upstream_timeout", True)] * 2


def test_no_route_is_tried_without_time_for_its_call() -> None:
    world = world_of(UNAVAILABLE, lease={"left_ms": 900})

    assert process(world) is Disposition.FAILED
    assert world.routes == ["first"]


def test_a_request_that_was_parked_remembers_what_it_tried() -> None:
    past = AttemptsOf("first")
    world = world_of(ANSWER, lease={"attempts": past.encoded, "failures": 1, "left_ms": MINUTE_MS})

    assert process(world) is Disposition.COMPLETED
    assert asks(world) == [({"first": 1}, False)]


class AttemptsOf:
    def __init__(self, route: str) -> None:
        failed = json.loads(past_attempt(1, code="upstream_error"))
        self.encoded = (json.dumps(failed | {"upstream": route}).encode(),)


async def test_a_worker_that_leaves_keeps_the_charge_of_a_request_on_the_move() -> None:
    """Handed back it would forget that a call has failed."""
    world = world_of(UNAVAILABLE)
    world.grants = deque(["", None])
    execution = execution_of()
    task = asyncio.create_task(processor(world, replace(POLICY, routes=TWO)).process(execution))
    while len(world.heard("admit")) < 2:  # noqa: ASYNC110  # the world sets no event of ours
        await asyncio.sleep(0)
    execution.interrupt(Interruption.DRAINING)

    assert await asyncio.wait_for(task, 5) is Disposition.RELEASED
    (park,) = world.heard("park")
    assert (park["delay_ms"], park["failures"]) == (0, 1)


def test_the_worker_names_the_route_of_each_call() -> None:
    world = world_of(ANSWER, via=("second",))

    process(world, raw=message({"body": body(user="someone")}))

    assert world.routes == ["second"]
    (asked,) = world.heard("admit")
    assert asked["ask"].keeps
    assert asked["ask"].model == "gpt-5.4-mini"
