"""A shut gate lets one probe through an interval, drawn so that it tells something."""

import itertools

import pytest
from support.admission_parts import KEY, PROBE_MS, Budget, open_breaker, probe_after, refused, shut

from worker.admission.grants import Ask

pytestmark = pytest.mark.limits(requests_per_minute=600_000)  # plenty: here only gates stop calls


async def refused_probe(budget: Budget) -> Ask:
    """The request that probed a shut gate, and was refused; the next probe is due in PROBE_MS."""
    await shut(budget)
    _, probe = await probe_after(budget)
    await refused(budget, probe)
    assert probe.asked
    return probe.asked


class TestTurns:
    """A shut gate lets one call through an interval, whoever asks, whatever became of the last."""

    async def test_one_probe_per_interval_whoever_asks(self, budget: Budget) -> None:
        await shut(budget)
        fleet = [budget.process() for _ in range(6)]
        probes: list[int] = []
        for _ in range(4 * PROBE_MS // 5_000):
            budget.advance(5_000)
            for member in fleet:
                for lane in ("interactive", "batch"):
                    tenant = f"{lane}-{budget.now_ms}"
                    probes += [budget.now_ms for _ in await budget.ask(20, lane=lane, by=member, tenant=tenant)]

        assert len(probes) == 4
        assert {later - earlier for earlier, later in itertools.pairwise(probes)} == {PROBE_MS}

    async def test_a_probe_that_never_called_leaves_its_turn_to_the_next(self, budget: Budget) -> None:
        """Its request was cancelled meanwhile; nobody should wait a whole interval for that."""
        await shut(budget)
        _, probe = await probe_after(budget)
        assert await budget.ask() == []

        await budget.unsent(probe)

        assert len(await budget.ask(5, tenant="another")) == 1
        assert await budget.ask() == []

    async def test_a_call_given_back_from_before_the_gate_is_no_turn(self, budget: Budget) -> None:
        early = await budget.one()
        budget.advance(100)
        await shut(budget)

        await budget.unsent(early)

        assert await budget.ask() == []

    async def test_a_probe_whose_worker_died_is_followed_by_the_next(self, budget: Budget) -> None:
        await shut(budget)
        await probe_after(budget)

        assert (await probe_after(budget))[0] <= PROBE_MS

    async def test_a_breakers_probe_whose_worker_died_is_followed_within_seconds(self, budget: Budget) -> None:
        """An upstream that is well again is not to wait a minute for somebody to look."""
        await open_breaker(budget)
        await probe_after(budget)

        assert (await probe_after(budget))[0] <= 15_000

    async def test_asking_again_after_a_lost_reply_is_the_same_probe(self, budget: Budget) -> None:
        await shut(budget)
        budget.advance(PROBE_MS)
        await budget.ask(5, tenant="another")
        first = budget.last

        again = await budget.runner.repeat("admit")

        assert [answer.word for answer in first.answers] == ["go", "wait", "wait", "wait", "wait"]
        assert again.answers[::2] == (b"go", b"wait", b"wait", b"wait", b"wait")
        assert (again.reason, again.code, again.probe) == (KEY, first.code, 1)

    async def test_the_gate_stays_shut_while_the_clock_goes_back(self, budget: Budget) -> None:
        """And probes go on as if nothing had happened."""
        await shut(budget)
        budget.advance(-3_600_000)

        waited_ms, probe = await probe_after(budget)
        assert waited_ms <= PROBE_MS
        budget.advance(10)
        await budget.ended(probe)
        assert budget.admission.gate == ""


class TestProbes:
    """A probe is drawn so that it tells something."""

    async def test_the_body_refused_last_is_not_tried_again(self, budget: Budget) -> None:
        last = await refused_probe(budget)
        budget.advance(PROBE_MS)

        assert await budget.ask(tenant="another", body=last.body) == []
        assert len(await budget.ask(tenant="another")) == 1

    async def test_one_that_failed_before_makes_room(self, budget: Budget) -> None:
        """Retries come back later; they do not fill the rooms of those that would make better probes."""
        await shut(budget)
        budget.advance(PROBE_MS)

        assert await budget.ask(5, failures=2, tenant="another") == []
        assert [answer.word for answer in budget.last.answers] == ["later"] * 5
        assert len(await budget.ask(tenant="another")) == 1

    async def test_another_tenant_is_preferred_for_a_while(self, budget: Budget) -> None:
        last = await refused_probe(budget)
        budget.advance(PROBE_MS - 1_000)
        assert await budget.ask(tenant="another") == []
        budget.advance(1_000)

        assert await budget.ask(tenant=last.tenant) == []
        assert budget.last.wait_ms <= 100
        budget.advance(PROBE_MS // 4)
        assert len(await budget.ask(tenant=last.tenant)) == 1

    async def test_a_tenant_that_is_alone_waits_for_no_other(self, budget: Budget) -> None:
        last = await refused_probe(budget)
        budget.advance(PROBE_MS + 1)

        assert len(await budget.ask(tenant=last.tenant)) == 1

    async def test_anybody_will_do_where_nobody_better_came(self, budget: Budget) -> None:
        last = await refused_probe(budget)
        budget.advance(2 * PROBE_MS)

        assert len(await budget.ask(tenant=last.tenant, body=last.body, failures=3)) == 1
