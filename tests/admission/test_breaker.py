"""A gateway that fails most calls is left alone, and tried again by one call at a time."""

import pytest
from support.admission_parts import (
    BROKEN,
    CONFIRM_MS,
    KEY,
    PROBE_MS,
    Budget,
    calls_ending,
    failing,
    open_breaker,
    probe_after,
    refused,
)

from worker.admission.client import Admission, UpstreamVerdict

pytestmark = pytest.mark.limits(requests_per_minute=600_000)  # plenty: here only gates stop calls


@pytest.mark.parametrize(
    ("verdicts", "opens"),
    [
        pytest.param(["failed"] * 19, False, id="19 of 19: too few to judge"),
        pytest.param(["failed"] * 20, True, id="20 of 20"),
        pytest.param(["ok", "failed"] * 10, False, id="half of 20: not more than half"),
        pytest.param([*["ok"] * 9, *["failed"] * 11], True, id="11 of 20"),
        pytest.param([*["ok"] * 40, *["failed"] * 40], False, id="half of 80"),
        pytest.param([*["ok"] * 1000, *["failed"] * 41], True, id="41 of 1041: how long it was well is no matter"),
        pytest.param([""] * 100, False, id="calls that say nothing"),
        pytest.param([*["failed"] * 15, *[""] * 50], False, id="15 failures among calls that say nothing"),
    ],
)
async def test_it_opens_when_most_of_twenty_calls_failed(
    budget: Budget, verdicts: list[UpstreamVerdict], *, opens: bool
) -> None:
    await calls_ending(budget, *verdicts)

    assert (budget.admission.gate == BROKEN) is opens


async def test_failures_of_long_ago_do_not_count(budget: Budget) -> None:
    await failing(budget, 15)
    budget.advance(61_000)
    await failing(budget, 15)

    assert budget.admission.gate == ""


async def test_failures_of_the_last_half_minute_count_across_its_middle(budget: Budget) -> None:
    await calls_ending(budget, "ok")
    budget.advance(29_000)
    await failing(budget, 15)
    budget.advance(2_000)
    await failing(budget, 4)

    assert budget.admission.gate == BROKEN


async def test_failures_of_many_processes_add_up(budget: Budget) -> None:
    processes: list[Admission] = [budget.process() for _ in range(5)]
    for each in processes * 4:
        await each.settle(await budget.one(by=each), used_tokens=1, verdict="failed")
    await budget.ask(by=processes[0])

    assert (processes[0].gate, budget.last.code) == (BROKEN, "upstream_error")


async def test_probes_come_at_doubling_intervals_up_to_a_quarter_minute(budget: Budget) -> None:
    await open_breaker(budget)
    intervals: list[int] = []
    for _ in range(6):
        waited_ms, probe = await probe_after(budget)
        intervals.append(waited_ms)
        await budget.ended(probe, verdict="failed")
        await budget.admission.refused(probe, probe.gate, "upstream_overloaded")

    assert intervals == [2_000, 4_000, 8_000, 15_000, 15_000, 15_000]
    assert budget.last.code == "upstream_overloaded"


async def test_calls_in_flight_when_it_opened_do_not_put_probes_off(budget: Budget) -> None:
    late = await budget.ask(30)
    budget.advance(10)
    await open_breaker(budget)
    for call in late:
        await budget.ended(call, verdict="failed")
        budget.advance(10)

    assert (await probe_after(budget, step_ms=100))[0] == 1_700


async def test_it_closes_with_the_first_probe_that_succeeds_and_forgets_what_failed(budget: Budget) -> None:
    await open_breaker(budget)
    _, probe = await probe_after(budget)
    await budget.ended(probe, verdict="ok")

    await failing(budget, 19)

    assert budget.admission.gate == ""
    assert "breaker_open" not in budget.state().values()


async def test_a_dead_key_found_by_a_probe_takes_over(budget: Budget) -> None:
    await open_breaker(budget)
    _, probe = await probe_after(budget)
    await refused(budget, probe)

    waited_ms, probe = await probe_after(budget)
    assert (waited_ms, budget.last.reason) == (CONFIRM_MS, KEY)
    await refused(budget, probe)
    assert (await probe_after(budget))[0] == PROBE_MS
