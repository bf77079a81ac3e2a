"""A dead key shuts the gate to the fleet once a probe confirms it; one call that the upstream takes opens it."""

import pytest
from support.admission_parts import CONFIRM_MS, KEY, PROBE_MS, WALLET, Budget, probe_after, refused, shut
from support.heard import Heard

from worker.admission.grants import Reservation

pytestmark = pytest.mark.limits(requests_per_minute=600_000)  # plenty: here only gates stop calls


class TestShutting:
    async def test_one_refusal_is_its_requests_own(self, budget: Budget) -> None:
        """Transient 401s happen, and some requests always meet one."""
        assert not await refused(budget, await budget.one())

        assert budget.admission.gate == ""
        assert len(await budget.ask(20)) == 20

    async def test_refusals_between_answers_stay_their_requests_own(self, budget: Budget) -> None:
        for _ in range(30):
            assert not await refused(budget, await budget.one())
            await budget.ended(await budget.one())

        assert budget.admission.gate == ""

    async def test_one_tenants_refusals_stay_its_own_where_others_are_active(self, budget: Budget) -> None:
        await budget.one(tenant="well")
        for _ in range(10):
            assert not await refused(budget, await budget.one(tenant="mistaken"))

        assert budget.admission.gate == ""

    async def test_two_refusals_in_a_row_ask_for_a_probe_that_confirms(self, budget: Budget) -> None:
        first, *calls = await budget.ask(10)
        budget.advance(200)
        assert not await refused(budget, first)
        for call in calls:
            assert await refused(budget, call)
            again = await budget.runner.repeat("report")
            assert (again.confirmed, again.shared) == (0, 1), "a lost reply is the same reply"

        waited_ms, probe = await probe_after(budget)
        assert (waited_ms, probe.gate) == (CONFIRM_MS, KEY)
        assert await refused(budget, probe)
        assert budget.state()["confirmed_at"] == str(budget.now_ms)

    async def test_one_process_of_the_fleet_hears_of_the_confirmation(self, budget: Budget) -> None:
        for call in await budget.ask(2):
            await refused(budget, call)
        confirmed: list[int] = []
        for _ in range(4):
            budget.advance(2 * PROBE_MS)
            await refused(budget, await budget.one())
            once, again = await budget.runner.repeat("report"), await budget.runner.repeat("report")
            assert once == again, "a lost reply is the same reply"
            confirmed.append(again.confirmed)

        assert confirmed == [1, 0, 0, 0]

    async def test_an_empty_wallet_behind_a_dead_key_is_told_as_such(self, budget: Budget) -> None:
        await shut(budget)
        _, probe = await probe_after(budget)
        await refused(budget, probe, WALLET, "quota_exhausted")

        await budget.ask()
        assert (budget.last.reason, budget.last.code) == (WALLET, "quota_exhausted")

    async def test_each_process_tells_of_each_change_once(self, budget: Budget) -> None:
        heard = Heard()
        listener = budget.process(events=heard)
        await shut(budget)
        for _ in range(5):
            await budget.ask(by=listener)
        _, probe = await probe_after(budget)
        await budget.ended(probe)
        for _ in range(5):
            await budget.ask(by=listener)

        assert [gate for gate, _ in heard.gates] == [KEY, ""]
        assert heard.gates[0][1] == KEY


class TestOpening:
    async def test_a_success_granted_before_the_gate_shut_does_not_open_it(self, budget: Budget) -> None:
        early, *dead = await budget.ask(3)
        budget.advance(100)
        for call in dead:
            await refused(budget, call)
        budget.advance(100)
        await budget.ended(early)

        assert budget.admission.gate == KEY
        assert await budget.ask() == []

    async def test_a_probe_that_succeeds_opens_for_everybody(self, budget: Budget) -> None:
        other = budget.process()
        await shut(budget)
        await budget.ask(by=other)
        assert other.gate == KEY
        _, probe = await probe_after(budget)

        await budget.ended(probe)

        assert budget.admission.gate == ""
        assert len(await budget.ask(20, by=other)) == 20
        assert other.gate == ""

    async def test_an_answer_that_says_nothing_of_the_upstream_opens_nothing(self, budget: Budget) -> None:
        await shut(budget)
        _, probe = await probe_after(budget)

        await budget.ended(probe, verdict="unclear")

        assert budget.admission.gate == KEY

    async def test_an_error_about_the_probes_request_opens_it(self, budget: Budget) -> None:
        """The gateway looked at the request, so it took the key."""
        await shut(budget)
        _, probe = await probe_after(budget)

        await budget.ended(probe, verdict="answered")

        assert budget.admission.gate == ""

    async def test_the_first_bytes_of_an_answer_open_it(self, budget: Budget) -> None:
        """A probe that takes minutes does not hold the fleet up."""
        await shut(budget)
        await budget.admission.heard(Reservation("early", 1, 0, budget.now_ms - PROBE_MS))
        assert budget.admission.gate == KEY
        _, probe = await probe_after(budget)

        await budget.admission.heard(probe)

        assert budget.admission.gate == ""
        assert len(await budget.ask(20)) == 20
