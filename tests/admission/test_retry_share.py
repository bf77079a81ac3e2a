"""Retries are at most a tenth of the calls, however slow the fleet is."""

import itertools

import pytest
from support.admission_parts import Budget


@pytest.mark.limits(requests_per_minute=30)
async def test_the_retries_of_a_slow_fleet_do_not_take_the_place_of_its_first_calls(budget: Budget) -> None:
    """Both always wait, the retry in front, and a call starts each two seconds."""
    numbers = itertools.count()
    started: list[bool] = []
    for _ in range(500):
        budget.advance(500)
        asked = [budget.asked(f"r{next(numbers)}", failures=failures) for failures in (1, 0)]
        grant = await budget.admission.grant("interactive", 1, asked)
        started += [failed for failed, answer in zip((True, False), grant.answers, strict=True) if answer.word == "go"]

    late = started[30:]
    assert len(late) > 80
    assert sum(late) <= len(late) / 10 + 1
