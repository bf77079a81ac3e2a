"""A Retry-After stops the whole fleet for as long as it says, and one call tries the way before the others."""

import pytest
from support.admission_parts import LONGEST_PAUSE_MS, Budget

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
