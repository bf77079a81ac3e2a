"""Reports that leave together share a run of the script, which reads its state once; they say what they say alone."""

import asyncio
from typing import Any, Final

import pytest
from support.admission_parts import open_budget

from worker.admission.evidence import Verdict

ENDS: Final[list[list[Verdict]]] = [
    ["ok"] * 12,
    ["ok", "throttled", "ok", "throttled", "throttled", "ok", "overloaded", "answered", "failed", "ok", "unsent", "ok"],
    ["authentication", "authentication", "ok", "authentication", "ok", "quota", "quota", "ok", "cut_short", "ok"],
]


async def told(valkey: Any, url: str, ends: list[Verdict], *, together: bool) -> tuple[list[bool], dict[str, Any]]:
    """The answers to the reports of calls with these ends, and all that admission keeps then."""
    valkey.flushall()
    async with open_budget(valkey, url, requests_per_minute=60_000) as budget:
        budget.set_clock(1_800_000_000_000)
        calls = [call for number in range(len(ends)) for call in await budget.ask(tenant=f"t{number % 3}")]
        budget.advance(700)
        reports = [budget.tell(call, end, code="upstream_error") for call, end in zip(calls, ends, strict=True)]
        shared = await asyncio.gather(*reports) if together else [await report for report in reports]
        kept = {name: valkey.hgetall(f"responses:{name}:default") for name in ("quota", "evidence", "times")}
        return shared, kept | {"permits": budget.permits()}


@pytest.mark.parametrize("ends", ENDS, ids=["well", "badly", "refused"])
async def test_reports_that_leave_together_change_what_they_change_one_by_one(
    valkey: Any, redis_url: str, ends: list[Verdict]
) -> None:
    one_by_one = await told(valkey, redis_url, ends, together=False)
    valkey.config_resetstat()
    assert await told(valkey, redis_url, ends, together=True) == one_by_one
    assert valkey.info("commandstats")["cmdstat_evalsha"]["calls"] <= len(ends) + 2, "one run for all reports"


async def test_reports_that_leave_together_write_once(valkey: Any, redis_url: str) -> None:
    """One HSET for the state and one for the times of calls, however many they are."""
    async with open_budget(valkey, redis_url, requests_per_minute=60_000) as budget:
        calls = [call for _ in range(8) for call in await budget.ask()]
        valkey.config_resetstat()
        await asyncio.gather(*(budget.tell(call, "ok") for call in calls))

    stats = valkey.info("commandstats")
    assert stats["cmdstat_zrem"]["calls"] == len(calls)
    assert stats["cmdstat_hset"]["calls"] == 2 * stats["cmdstat_evalsha"]["calls"] <= 4
