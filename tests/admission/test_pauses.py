"""An operator's pause beats all else; it ends when an operator says so, or at the time it was given."""

import pytest
import redis
from support.admission_parts import BROKEN, KEY, PROBE_MS, WALLET, Budget, open_breaker, open_budget, shut

from worker.admission.grants import Gate


async def test_a_pause_with_a_time_ends_by_itself(budget: Budget) -> None:
    await budget.admission.pause(for_ms=60_000, by="ann at bastion", why="an invoice")
    assert await budget.ask() == []
    assert budget.last.reason == "paused"
    budget.advance(59_000)
    assert await budget.ask() == []
    budget.advance(1_001)

    assert len(await budget.ask()) == 1
    assert {name for name in budget.redis.hkeys("responses:quota:default") if name.startswith(b"paused")} == set()


async def test_a_second_pause_replaces_the_first(budget: Budget) -> None:
    await budget.admission.pause(for_ms=1_000, by="ann", why="short")
    await budget.admission.pause(by="bob", why="long")
    budget.advance(3_600_000)

    assert await budget.ask() == []
    assert budget.redis.hmget("responses:quota:default", "paused_by", "paused_why") == [b"bob", b"long"]
    await budget.admission.resume()
    assert len(await budget.ask()) == 1


async def test_a_clock_that_went_back_makes_no_pause_longer(valkey: redis.Redis, redis_url: str) -> None:
    async with open_budget(valkey, redis_url, requests_per_minute=600) as budget:
        await budget.ask()
        await budget.admission.pause(for_ms=10_000)
        budget.advance(-3_600_000)
        assert await budget.ask() == []
        budget.advance(10_001)

        assert len(await budget.ask()) == 1


@pytest.mark.limits(requests_per_minute=600_000)  # plenty: here only gates stop calls
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
