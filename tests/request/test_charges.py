"""Every call is charged to its request: whatever the gateway answers, the calls of one request are bounded."""

import asyncio
from collections import deque
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.processor_parts import failing, message, process
from support.processor_world import ANSWER, World

from api_contracts import ErrorCode
from worker.failures.failure import Failure, Route
from worker.queue.attempts import AttemptRecord
from worker.request.charges import INTERRUPTED, Spent
from worker.request.retries import OWN_REFUSALS, OWN_THROTTLES

ROUTES = {route: [code for code in ErrorCode if Failure.of(code).route is route] for route in Route}
REFUSED = ROUTES[Route.CREDENTIAL] + ROUTES[Route.THROTTLE]
COSTLY = [code for code in ROUTES[Route.RETRY] if Failure.of(code).maybe_billed]
DAY_MS = 86_400_000


async def life(
    outcomes: list[Failure], *, shared: bool = False, gate: Any = "", **envelope: Any
) -> tuple[int, str | None]:
    """One request that meets these in turn, then the last for ever: how often it calls, and the code of its answer."""
    calls, spent, past = 0, {"failures": 0, "own": 0}, ()
    while calls < 100:
        met = [*outcomes[calls:], *[outcomes[-1]] * 100]
        lease = {"left_ms": DAY_MS, "attempts": past, **spent}
        world = World(shared=shared, grants=deque([gate] * 100), outcomes=deque(met), lease=lease)
        await process(world, message(envelope))
        past = (*past, *(attempt(calls + n, each) for n, each in enumerate(met[: len(world.calls)], 1)))
        calls += len(world.calls)
        if completed := world.heard("complete"):
            assert len(completed) == 1
            return calls, world.result["error"]["code"]
        parked = world.heard("park")
        if not parked:
            break
        spent = {name: parked[0][name] for name in spent}
    return calls, None


def attempt(number: int, failure: Failure) -> bytes:
    """As the ledger keeps it while the request is parked."""
    outcome = "failed" if failure.route is Route.RETRY else "throttled"
    return AttemptRecord(number=number, outcome=outcome, code=failure.code, maybe_billed=failure.maybe_billed).encode()


@settings(deadline=None)  # each example runs a whole life
@given(
    codes=st.lists(st.sampled_from(REFUSED + ROUTES[Route.RETRY]), min_size=1, max_size=12),
    max_attempts=st.integers(1, 7),
    gate=st.sampled_from(["", "breaker_open", "authentication_failed"]),
)
def test_whatever_a_request_meets_alone_its_calls_are_bounded(
    codes: list[ErrorCode], max_attempts: int, gate: str
) -> None:
    """At most `max_attempts` calls that failed, two of them costly, and seven refusals; the last one is the answer."""
    calls, code = asyncio.run(life([failing(code) for code in codes], gate=gate, max_attempts=max_attempts))

    met = [*codes, *[codes[-1]] * 100][:calls]
    failed = [each for each in met if each not in REFUSED]
    assert code == met[-1]
    assert len(failed) <= max_attempts
    assert sum(each in COSTLY for each in failed) <= min(2, max_attempts)
    assert len(met) - len(failed) <= OWN_THROTTLES


@pytest.mark.parametrize("max_attempts", [1, 2, 6])
@pytest.mark.parametrize("gate", ["", "breaker_open"])
@pytest.mark.parametrize("code", COSTLY)
async def test_a_call_that_may_be_billed_is_made_twice_at_most(code: ErrorCode, gate: str, max_attempts: int) -> None:
    """A probe may be billed as well."""
    assert await life([failing(code)], gate=gate, max_attempts=max_attempts) == (min(2, max_attempts), code)


@pytest.mark.parametrize(
    ("code", "calls"),
    [
        (ErrorCode.AUTHENTICATION_FAILED, OWN_REFUSALS),
        (ErrorCode.QUOTA_EXHAUSTED, OWN_REFUSALS),
        (ErrorCode.RATE_LIMITED, OWN_THROTTLES),
    ],
)
async def test_a_request_that_is_always_refused_is_answered_with_the_code_of_its_trouble(
    code: ErrorCode, calls: int
) -> None:
    assert await life([failing(code, retry_after_s=5.0)], max_attempts=1) == (calls, code)


async def test_refusals_spend_no_attempt() -> None:
    """Three transient refusals, and the one attempt that is allowed is still there."""
    refusals = [failing(ErrorCode.AUTHENTICATION_FAILED)] * 3

    assert await life([*refusals, failing(ErrorCode.UPSTREAM_OVERLOADED)], max_attempts=1) == (4, "upstream_overloaded")


@given(outcome=st.sampled_from([ANSWER, INTERRUPTED, *map(failing, ErrorCode)]), shared=st.booleans())
def test_a_call_costs_one_thing_at_most(outcome: Any, shared: bool) -> None:  # noqa: FBT001  # drawn, not passed
    """And nothing that is taken back later."""
    spent = Spent(2, 3).after(outcome, shared=shared)

    route = None if outcome in (ANSWER, INTERRUPTED) else outcome.route
    refused_alone = route in (Route.THROTTLE, Route.CREDENTIAL) and not shared
    asked_again = outcome not in (ANSWER, INTERRUPTED) and outcome.code is ErrorCode.OUTPUT_INVALID
    assert spent == Spent(2 + (route is Route.RETRY or asked_again), 3 + refused_alone)
