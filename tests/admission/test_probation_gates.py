"""A breaker that opened for the failures of a few tenants is tried at once by another, and they stay on probation."""

from collections.abc import Sequence
from typing import Final

import pytest
from support.admission_parts import BREAKER_CALLS, Budget
from support.admission_parts import CONFIRM_MS as SECOND_MS

from worker.admission.grants import Reservation

pytestmark = pytest.mark.limits(requests_per_minute=600_000)  # plenty: here only gates stop calls

FEW: Final = ("evil", "worse")


def words(budget: Budget) -> list[str]:
    return [answer.word for answer in budget.last.answers]


async def went(budget: Budget, tenants: Sequence[str]) -> list[Reservation]:
    """Those of these requests that may start, asked for together in this order."""
    asked = [budget.asked(f"{tenant}-{budget.now_ms}-{at}", tenant=tenant) for at, tenant in enumerate(tenants)]
    budget.last = await budget.admission.grant("interactive", 1, asked)
    return [
        Reservation(one.token, 1, 0, budget.now_ms, budget.admission.gate, answer.number, one)
        for one, answer in zip(asked, budget.last.answers, strict=True)
        if answer.word == "go"
    ]


async def breaker_for(budget: Budget, tenants: Sequence[str], *, good: int = 0) -> list[Reservation]:
    """All calls of these tenants fail, until the breaker opens; `good` calls of another are on their way then."""
    calls = await went(budget, [tenants[at % len(tenants)] for at in range(BREAKER_CALLS + 1)])
    others = [await budget.one(tenant="good") for _ in range(good)]
    for call in calls:
        await budget.tell(call, "failed")
    assert budget.admission.gate == "breaker_open"
    budget.advance(1)
    return others


async def test_a_breaker_that_some_tenants_opened_alone_is_tried_at_once_by_another(budget: Budget) -> None:
    await breaker_for(budget, FEW)
    assert await went(budget, ["evil", "worse"]) == []
    (probe,) = await went(budget, ["evil", "good", "better"])
    assert words(budget) == ["later", "go", "wait"]
    assert await went(budget, ["better"]) == []
    await budget.tell(probe, "ok")

    assert budget.admission.gate == ""


async def test_an_answer_to_a_later_call_of_another_tenant_closes_it(budget: Budget) -> None:
    (other,) = await breaker_for(budget, FEW, good=1)
    await budget.tell(other, "ok")

    assert budget.admission.gate == ""


async def test_a_call_from_before_the_failures_does_not(budget: Budget) -> None:
    before = await budget.one(tenant="good")
    await breaker_for(budget, FEW)
    await budget.tell(before, "ok")

    assert budget.admission.gate == "breaker_open"


async def test_a_breaker_that_others_opened_as_well_is_not_tried_at_once(budget: Budget) -> None:
    await budget.tell(await budget.one(tenant="unlucky"), "failed")
    await breaker_for(budget, FEW)

    assert await went(budget, ["good"]) == []


async def test_a_probe_at_once_that_fails_lengthens_no_interval(budget: Budget) -> None:
    await breaker_for(budget, FEW)
    (probe,) = await went(budget, ["good"])
    await budget.tell(probe, "failed")
    budget.advance(2 * SECOND_MS - 1)
    assert await went(budget, ["better"]) == []
    budget.advance(1)

    assert len(await went(budget, ["better"])) == 1


async def test_probation_outlives_the_gate_and_ends_with_one_answer(budget: Budget) -> None:
    await breaker_for(budget, FEW)
    await budget.tell((await went(budget, ["good"]))[0], "ok")
    budget.advance(2 * SECOND_MS)
    assert len(budget.state()["pr_tenants"].split()) == 2
    for tenant in FEW:
        await budget.tell(await budget.one(tenant=tenant), "ok")

    assert "pr_tenants" not in budget.state()


async def test_at_a_gate_that_stays_shut_it_waits_in_line(budget: Budget) -> None:
    await breaker_for(budget, FEW)
    await went(budget, ["good"])
    await went(budget, ["evil"])
    assert words(budget) == ["later"]
    budget.advance(10 * SECOND_MS)
    await went(budget, ["good", "evil"])

    assert words(budget) == ["wait", "wait"]
