"""Pauses, dead keys and broken gateways: who may still call, who asks next, and what opens the way again."""

import itertools

import pytest
from support.admission_parts import (
    BROKEN,
    CONFIRM_MS,
    KEY,
    LONGEST_PAUSE_MS,
    PROBE_MS,
    WALLET,
    Budget,
    open_breaker,
    probe_after,
    refused,
    shut,
)
from support.heard import Heard

from worker.admission.grants import Gate, Reservation

pytestmark = pytest.mark.limits(requests_per_minute=600_000)  # plenty: here only gates stop calls


class TestRetryAfter:
    async def test_nobody_is_admitted_before_the_pause_ends(self, budget: Budget) -> None:
        others = [budget.process() for _ in range(3)]
        assert await budget.throttled(await budget.one(), 10), "others share it"

        for other in others:
            assert await budget.ask(by=other) == []
            assert (budget.last.reason, budget.last.wait_ms) == ("throttled", 10_000)
        budget.advance(9_999)
        assert await budget.ask() == []
        budget.advance(2)
        assert len(await budget.ask()) == 1

    @pytest.mark.parametrize("shorter", [None, 0, 1, 8])
    async def test_a_shorter_pause_never_shortens_a_longer_one(self, budget: Budget, shorter: float | None) -> None:
        calls = await budget.ask(5)
        await budget.throttled(calls[0], 10)
        budget.advance(1_000)
        for call in calls[1:]:
            await budget.throttled(call, shorter)

        await budget.ask()
        assert budget.last.wait_ms == 9_000

    async def test_a_longer_pause_extends(self, budget: Budget) -> None:
        first, second = await budget.ask(2)
        await budget.throttled(first, 10)
        await budget.throttled(second, 30)

        await budget.ask()
        assert budget.last.wait_ms == 30_000

    async def test_no_pause_is_longer_than_the_longest(self, budget: Budget) -> None:
        calls = await budget.ask(3)
        for call in calls:
            await budget.throttled(call, 10**9)
            budget.advance(1_000)

        await budget.ask()
        assert LONGEST_PAUSE_MS - 1_000 <= budget.last.wait_ms <= LONGEST_PAUSE_MS

    async def test_after_a_pause_one_call_goes_ahead_of_the_others(self, budget: Budget) -> None:
        """If the upstream still refuses, one call found out, not a burst."""
        await budget.throttled(await budget.one(), 10)
        budget.advance(10_001)

        assert len(await budget.ask(50)) == 1
        assert budget.last.reason == "throttled"
        assert 0 < budget.last.wait_ms <= 2_000
        budget.advance(budget.last.wait_ms + 1)
        assert len(await budget.ask(50)) > 10


class TestOperator:
    async def test_a_pause_beats_everything_and_a_probe_is_no_exception(self, budget: Budget) -> None:
        await shut(budget)
        await budget.admission.pause()
        budget.advance(10 * PROBE_MS)

        assert await budget.ask() == []
        assert (budget.last.reason, budget.last.code) == ("paused", "")

    async def test_only_an_operator_ends_a_pause(self, budget: Budget) -> None:
        call = await budget.one()
        await budget.admission.pause()
        await budget.ended(call)
        budget.advance(7 * 24 * 3_600_000)

        assert await budget.ask() == []
        await budget.admission.resume()
        assert len(await budget.ask()) == 1

    @pytest.mark.parametrize("gate", ["none", KEY, WALLET, BROKEN])
    async def test_resume_opens_everything_at_once(self, budget: Budget, gate: Gate) -> None:
        call = await budget.one()
        if gate == BROKEN:
            await open_breaker(budget)
        elif gate in {KEY, WALLET}:
            await shut(budget, gate)
        await budget.throttled(call, 600)
        await budget.admission.pause()

        await budget.admission.resume()
        budget.advance(100)

        assert len(await budget.ask(20)) == 20
        assert not budget.last.probe

    async def test_every_process_hears_of_it(self, budget: Budget) -> None:
        other = budget.process()
        await budget.admission.pause()
        await budget.ask(by=other)
        assert other.paused

        await budget.admission.resume()
        await budget.ask(by=other)
        assert not other.paused

    async def test_resuming_what_never_ran_harms_nothing(self, budget: Budget) -> None:
        await budget.admission.resume()

        assert len(await budget.ask()) == 1


class TestDeadKey:
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

    async def test_an_empty_wallet_behind_a_dead_key_is_told_as_such(self, budget: Budget) -> None:
        await shut(budget)
        _, probe = await probe_after(budget)
        await refused(budget, probe, WALLET, "quota_exhausted")

        await budget.ask()
        assert (budget.last.reason, budget.last.code) == (WALLET, "quota_exhausted")

    async def test_the_gate_stays_shut_while_the_clock_goes_back(self, budget: Budget) -> None:
        """And probes go on as if nothing had happened."""
        await shut(budget)
        budget.advance(-3_600_000)

        waited_ms, probe = await probe_after(budget)
        assert waited_ms <= PROBE_MS
        budget.advance(10)
        await budget.ended(probe)
        assert budget.admission.gate == ""

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


class TestProbes:
    """A probe is drawn so that it tells something."""

    async def test_the_body_refused_last_is_not_tried_again(self, budget: Budget) -> None:
        await shut(budget)
        _, probe = await probe_after(budget)
        await refused(budget, probe)
        assert probe.asked
        budget.advance(PROBE_MS)

        assert await budget.ask(tenant="another", body=probe.asked.body) == []
        assert len(await budget.ask(tenant="another")) == 1

    async def test_one_that_failed_before_makes_room(self, budget: Budget) -> None:
        """Retries come back later; they do not fill the rooms of those that would make better probes."""
        await shut(budget)
        budget.advance(PROBE_MS)

        assert await budget.ask(5, failures=2, tenant="another") == []
        assert [answer.word for answer in budget.last.answers] == ["later"] * 5
        assert len(await budget.ask(tenant="another")) == 1

    async def test_another_tenant_is_preferred_for_a_while(self, budget: Budget) -> None:
        await shut(budget)
        _, probe = await probe_after(budget)
        await refused(budget, probe)
        assert probe.asked
        budget.advance(PROBE_MS)

        assert await budget.ask(tenant=probe.asked.tenant) == []
        assert budget.last.wait_ms <= 100
        budget.advance(PROBE_MS // 4)
        assert len(await budget.ask(tenant=probe.asked.tenant)) == 1

    async def test_anybody_will_do_where_nobody_better_came(self, budget: Budget) -> None:
        await shut(budget)
        _, probe = await probe_after(budget)
        await refused(budget, probe)
        assert probe.asked
        budget.advance(2 * PROBE_MS)

        assert len(await budget.ask(tenant=probe.asked.tenant, body=probe.asked.body, failures=3)) == 1
