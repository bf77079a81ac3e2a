"""A tenant whose calls come to nothing makes room for others; it is not starved, and it comes back."""

from typing import Final

import pytest
from support.admission_parts import BURST, Budget, refused, shut
from support.admission_parts import CONFIRM_MS as SECOND_MS

from worker.admission.evidence import Verdict
from worker.admission.grants import Reservation

PROVEN: Final = 3
SHARE: Final = 10
"""One call in so many of others."""
SPENT_MS: Final = 100
"""One more call of ten a second."""


def words(budget: Budget) -> list[str]:
    return [answer.word for answer in budget.last.answers]


def tenant_of(call: Reservation) -> str:
    return call.asked.tenant if call.asked else ""


async def in_vain(budget: Budget, count: int = PROVEN, *, verdict: Verdict = "failed", tenant: str = "evil") -> None:
    for _ in range(count):
        budget.advance(SPENT_MS)
        await budget.tell(await budget.one(tenant=tenant), verdict)


async def crowded(budget: Budget) -> None:
    """The budget is spent, and a good tenant waits."""
    await budget.drain(tenant="good")
    assert words(budget) == ["wait"] * 50


async def went(budget: Budget, tenants: list[str]) -> list[Reservation]:
    """Those of these requests that may start, asked for together in this order."""
    asked = [budget.asked(f"{tenant}-{budget.now_ms}-{at}", tenant=tenant) for at, tenant in enumerate(tenants)]
    budget.last = await budget.admission.grant("interactive", 1, asked)
    return [
        Reservation(one.token, 1, 0, budget.now_ms, "", answer.number, one)
        for one, answer in zip(asked, budget.last.answers, strict=True)
        if answer.word == "go"
    ]


@pytest.mark.parametrize("verdict", ["failed", "overloaded", "authentication", "throttled", "answered", "unclear"])
async def test_a_tenant_whose_calls_come_to_nothing_makes_room_for_those_who_wait(
    budget: Budget, verdict: Verdict
) -> None:
    await budget.tell(await budget.one(tenant="good"), "ok")
    await in_vain(budget, verdict=verdict)
    await crowded(budget)
    budget.advance(SPENT_MS)
    (call,) = await went(budget, ["evil", "good", "evil"])

    assert tenant_of(call) == "good"
    assert words(budget) == ["later", "go", "later"]
    back_in_ms = [answer.number for answer in budget.last.answers if answer.word == "later"]
    assert back_in_ms == [50, 100], "twice as fast as the fleet may call"


async def test_one_call_fewer_proves_nothing(budget: Budget) -> None:
    await in_vain(budget, PROVEN - 1)
    await crowded(budget)
    budget.advance(SPENT_MS)
    (call,) = await went(budget, ["evil", "good"])

    assert tenant_of(call) == "evil"


async def test_a_request_that_fails_again_and_again_is_heard_once(budget: Budget) -> None:
    for failures in range(5):
        budget.advance(SPENT_MS)
        await budget.tell(await budget.one(tenant="evil", failures=failures), "failed")
    await crowded(budget)
    budget.advance(SPENT_MS)

    assert len(await went(budget, ["evil", "good"])) == 1
    assert words(budget) == ["go", "wait"]


async def test_it_gets_a_tenth_of_the_calls_while_others_wait(budget: Budget) -> None:
    await in_vain(budget)
    await crowded(budget)
    started: list[str] = []
    for _ in range(5 * (SHARE + 1)):
        budget.advance(SPENT_MS)
        started += map(tenant_of, await went(budget, ["evil", "good", "good"]))

    assert started.count("evil") == len(started) // (SHARE + 1) == 5


async def test_it_goes_at_once_where_there_is_room(budget: Budget) -> None:
    await in_vain(budget)
    await budget.one(tenant="good")

    assert len(await budget.ask(3, tenant="evil")) == 3


async def test_it_shows_whoever_is_behind_it_and_then_waits_in_line(budget: Budget) -> None:
    """As far as is known nobody else waits: its requests leave their room for ten seconds, so that others are seen."""
    await in_vain(budget)
    await budget.ask(BURST, tenant="evil")
    assert set(words(budget)) == {"go", "later"}
    budget.advance(10 * SECOND_MS + 1)
    await budget.ask(2 * BURST, tenant="evil")

    assert set(words(budget)) == {"go", "wait"}


async def test_a_fleet_of_one_tenant_looks_for_others_once_a_minute(budget: Budget) -> None:
    await in_vain(budget)
    await budget.tell(await budget.one(tenant="evil"), "ok")
    budget.advance(30 * SECOND_MS)
    await in_vain(budget)
    await budget.ask(2 * BURST, tenant="evil")
    assert set(words(budget)) == {"go", "wait"}

    budget.advance(31 * SECOND_MS)
    await in_vain(budget, verdict="ok")
    await in_vain(budget)
    await budget.ask(2 * BURST, tenant="evil")
    assert set(words(budget)) == {"go", "later"}


async def test_answers_end_it(budget: Budget) -> None:
    await in_vain(budget)
    await budget.tell(await budget.one(tenant="evil"), "ok")
    await crowded(budget)
    budget.advance(SPENT_MS)

    assert len(await went(budget, ["evil", "good"])) == 1
    assert words(budget) == ["go", "wait"]


async def test_a_minute_without_such_calls_ends_it(budget: Budget) -> None:
    await in_vain(budget)
    budget.advance(61 * SECOND_MS)
    await budget.tell(await budget.one(tenant="good"), "ok")

    assert {"pr_rows", "pr_tenants"} & set(budget.state()) == set()


@pytest.mark.parametrize("code", ["", "cancelled"])
async def test_a_call_that_was_broken_off_says_nothing_of_its_tenant(budget: Budget, code: str) -> None:
    for _ in range(2 * PROVEN):
        budget.advance(SPENT_MS)
        await budget.tell(await budget.one(tenant="evil"), "cut_short", code=code)
    await in_vain(budget, PROVEN - 1, verdict="unsent")

    assert "pr_rows" not in budget.state()


async def test_a_call_that_its_own_timeout_ended_came_to_nothing(budget: Budget) -> None:
    for _ in range(PROVEN):
        await budget.tell(await budget.one(tenant="hasty"), "cut_short", code="upstream_timeout")

    assert "pr_tenants" in budget.state()


async def test_trouble_that_everybody_has_puts_nobody_on_probation(budget: Budget) -> None:
    await shut(budget)
    budget.advance(SECOND_MS)
    for _ in range(PROVEN):
        budget.advance(90 * SECOND_MS)
        await refused(budget, await budget.one(tenant="another"))

    assert budget.admission.gate
    assert "pr_tenants" not in budget.state()


async def test_a_request_of_little_time_waits_in_line(budget: Budget) -> None:
    await in_vain(budget)
    await crowded(budget)
    ends_ms = budget.now_ms + 9 * SECOND_MS
    await budget.ask(1, tenant="evil", ends_ms=ends_ms, enqueued_at_ms=ends_ms - 60 * SECOND_MS)

    assert words(budget) == ["wait"]


async def test_a_pause_of_an_operator_sends_nobody_away(budget: Budget) -> None:
    await in_vain(budget)
    await budget.admission.pause()
    await budget.ask(1, tenant="evil")

    assert words(budget) == ["wait"]


async def test_the_rows_are_few(budget: Budget) -> None:
    await in_vain(budget)
    for number in range(40):
        budget.advance(SPENT_MS)
        await in_vain(budget, 1, tenant=f"t{number}", verdict="unclear")

    assert budget.state()["pr_rows"].count("[") == 16
    assert "pr_tenants" in budget.state(), "those of one failure go first"
