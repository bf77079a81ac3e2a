"""A gateway that fails most calls is left alone, and tried again by one call at a time."""

import pytest
from support.admission_parts import (
    BREAKER_CALLS,
    BROKEN,
    KEY,
    LEASE_MS,
    PERMITS,
    PROBE_MS,
    Budget,
    failing,
    open_breaker,
    probe_after,
    refused,
)

from worker.admission.client import Admission
from worker.admission.evidence import Evidence, Verdict

pytestmark = pytest.mark.limits(requests_per_minute=600_000)  # plenty: here only gates stop calls


ROW = BREAKER_CALLS


@pytest.mark.parametrize(
    ("verdicts", "opens"),
    [
        pytest.param(["failed"] * (ROW - 1), False, id="18 of 18: too few to judge"),
        pytest.param(["failed"] * ROW, True, id="19 of 19"),
        pytest.param(["ok", "failed"] * 40, False, id="half of 80: not more than half"),
        pytest.param(["ok", "ok", "failed", "failed", "failed"] * 25, True, id="three of five, for long enough"),
        pytest.param(["ok", "failed", "failed"] * 9, False, id="two of three, not for long enough"),
        pytest.param([*["ok"] * 1000, *["failed"] * ROW], True, id="how long it was well is no matter"),
        pytest.param(["unclear"] * 100, False, id="calls that say nothing"),
        pytest.param([*["failed"] * 15, *["unclear"] * 50, *["failed"] * 15], False, id="two crowds far apart"),
        pytest.param(["cut_short"] * 100, False, id="our own clock says nothing"),
        pytest.param(["answered", "failed"] * 40, False, id="errors about a request are answers"),
        pytest.param(["overloaded"] * ROW, True, id="overload of everybody"),
    ],
)
async def test_it_opens_when_more_than_half_of_the_calls_fail(
    budget: Budget, verdicts: list[Verdict], *, opens: bool
) -> None:
    for verdict in verdicts:
        await budget.ended(*await budget.ask(), verdict=verdict)

    assert (budget.admission.gate == BROKEN) is opens


async def test_slow_failures_that_come_out_of_order_do_not_outvote_those_that_succeed(budget: Budget) -> None:
    """A third of the calls fail, each after as long as it pleases: the last one first."""
    calls = await budget.ask(300)
    for call in reversed(calls[::3]):
        await budget.ended(call, verdict="failed")

    assert budget.admission.gate == ""


async def test_slow_failures_of_everybody_open_it_in_any_order(budget: Budget) -> None:
    for _ in range(3):
        for call in reversed(await budget.ask(60)):
            await budget.ended(call, verdict="failed")

    assert budget.admission.gate == BROKEN


async def test_quick_failures_do_not_outvote_slow_successes(budget: Budget) -> None:
    """A third of the calls fail at once; the others are still under way."""
    for _ in range(60):
        calls = await budget.ask(3)
        await budget.ended(calls[0], verdict="failed")

    assert budget.admission.gate == ""


async def test_a_body_that_fails_again_and_again_is_heard_once(budget: Budget) -> None:
    """Others are asked for in these states."""
    waits = await budget.one(body="another")
    for _ in range(3 * ROW):
        await budget.tell(await budget.one(body="the same"), "failed")

    assert budget.admission.gate == ""
    await budget.tell(waits, "ok")


async def test_where_all_ask_for_the_same_body_it_speaks_for_the_fleet(budget: Budget) -> None:
    for _ in range(ROW):
        assert budget.admission.gate == ""
        await budget.tell(await budget.one(body="the same"), "failed")

    assert budget.admission.gate == "breaker_open"


async def test_a_retry_that_fails_again_is_not_heard_again(budget: Budget) -> None:
    for _ in range(3 * ROW):
        budget.advance(3_000)  # the retry budget refills
        await budget.tell(await budget.one(failures=1), "failed")

    assert budget.admission.gate == ""


async def test_one_tenants_failures_do_not_open_it_for_the_others(budget: Budget) -> None:
    """Nor do they when the others' calls are still under way."""
    for _ in range(3 * ROW):
        await budget.one(tenant="well")
        await budget.tell(await budget.one(tenant="poisoned"), "failed")
        await budget.tell(await budget.one(tenant="poisoned"), "failed")

    assert budget.admission.gate == ""


async def test_failures_of_several_tenants_open_it(budget: Budget) -> None:
    for number in range(ROW):
        await budget.tell(await budget.one(tenant=f"t{number % 3}"), "failed")

    assert budget.admission.gate == BROKEN


async def test_failures_are_a_matter_of_calls_and_not_of_time(budget: Budget) -> None:
    """A fleet with one call a minute notices an outage as well; an hour's rest proves nothing."""
    for _ in range(ROW):
        await failing(budget, 1)
        budget.advance(61_000)

    assert budget.admission.gate == BROKEN


async def test_failures_of_many_processes_add_up(budget: Budget) -> None:
    processes: list[Admission] = [budget.process() for _ in range(5)]
    for number in range(ROW):
        each = processes[number % 5]
        await each.tell(
            await budget.one(by=each), Evidence(verdict="failed", used_tokens=1, code="upstream_unreachable")
        )
    await budget.ask(by=processes[0])

    assert (processes[0].gate, budget.last.code) == (BROKEN, "upstream_unreachable")


async def test_probes_come_at_doubling_intervals_up_to_a_quarter_minute(budget: Budget) -> None:
    """The first at once: all failures were of one tenant, and another asks. From then on it is none of theirs alone."""
    await open_breaker(budget)
    intervals: list[int] = []
    for _ in range(6):
        waited_ms, probe = await probe_after(budget)
        intervals.append(waited_ms)
        await budget.tell(probe, "overloaded", code="upstream_overloaded")

    assert intervals == [500, 2_000, 4_000, 8_000, 15_000, 15_000]
    assert budget.last.code == "upstream_overloaded"


async def test_calls_in_flight_when_it_opened_do_not_put_probes_off(budget: Budget) -> None:
    late = await budget.ask(30)
    budget.advance(10)
    await open_breaker(budget)
    for call in late:
        await budget.ended(call, verdict="failed")
        budget.advance(10)

    waited_ms = 0
    while not await budget.ask():
        budget.advance(100)
        waited_ms += 100
    assert waited_ms == 1_700


async def test_it_closes_with_the_first_probe_that_succeeds_and_forgets_what_failed(budget: Budget) -> None:
    await open_breaker(budget)
    _, probe = await probe_after(budget)
    await budget.ended(probe)
    budget.advance(2_000)  # nobody waits any more

    await failing(budget, ROW - 1)

    assert budget.admission.gate == ""
    assert "breaker_open" not in budget.state().values()


async def test_a_dead_key_found_by_a_probe_takes_over(budget: Budget) -> None:
    await open_breaker(budget)
    _, probe = await probe_after(budget)
    await refused(budget, probe)

    waited_ms, _ = await probe_after(budget)
    assert (waited_ms, budget.last.reason, budget.last.code) == (PROBE_MS, KEY, KEY)


class TestSilence:
    """A gateway that answers nobody is noticed, although every call is ended by our own clock."""

    async def silence(self, budget: Budget, calls: int, ms: int) -> None:
        for _ in range(calls):
            budget.advance(ms // calls)
            await budget.ask()

    async def known(self, budget: Budget, took_ms: int = 3_000) -> None:
        """Calls take so long."""
        for _ in range(20):
            call = await budget.one()
            budget.advance(took_ms)
            await budget.ended(call)

    async def test_it_shuts_the_gate(self, budget: Budget) -> None:
        await self.known(budget)
        await self.silence(budget, 30, 40_000)

        assert (budget.admission.gate, budget.last.code) == (BROKEN, "upstream_timeout")

    async def test_what_usually_takes_long_is_no_silence(self, budget: Budget) -> None:
        await self.known(budget, took_ms=60_000)
        await self.silence(budget, 30, 100_000)

        assert budget.admission.gate == ""

    async def test_a_few_calls_are_no_silence(self, budget: Budget) -> None:
        await self.known(budget)
        await self.silence(budget, 9, 100_000)

        assert budget.admission.gate == ""

    @pytest.mark.parametrize("verdict", ["cut_short", "unsent"])
    async def test_calls_that_their_callers_end_early_or_that_were_never_made_are_no_silence(
        self, budget: Budget, verdict: Verdict
    ) -> None:
        await self.known(budget)
        for _ in range(200):
            call = await budget.one()
            budget.advance(500)
            await budget.ended(call, verdict=verdict)

        assert budget.admission.gate == ""

    async def test_any_answer_ends_it(self, budget: Budget) -> None:
        """Even that of a call from before: the gateway was slow, not silent."""
        await self.known(budget)
        early = await budget.one()
        await self.silence(budget, 30, 40_000)
        assert budget.admission.gate == BROKEN
        budget.redis.zadd(PERMITS, {early.token: budget.now_ms + LEASE_MS})  # as its worker did meanwhile

        await budget.ended(early, verdict="throttled")

        assert budget.admission.gate == ""
