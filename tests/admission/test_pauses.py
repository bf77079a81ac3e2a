"""An operator's pause: it ends when an operator says so, or by itself where it was given a time."""

import redis
from support.admission_parts import Budget, open_budget


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
