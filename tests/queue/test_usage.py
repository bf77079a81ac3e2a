"""The accounts are the sums of the published results, whatever is asked twice, stale or in the way."""

import asyncio
import json
import random
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from support.ledger_parts import COMPLETED, FAILED, FAILED_RETRYABLE, HOUR_MS, Desk, claim_of

from worker.operations.usage import DAY_MS, Usage, read, total
from worker.queue import usage as accounts
from worker.queue.claims import Lease, Published, Refusal, WriteOutcome
from worker.queue.usage import Used

MONTH = timedelta(days=40)
COUNTED = ("hmget", "hset", "hlen", "pexpireat")
USED = Used(model="gpt-5.4-mini", input_tokens=100, cached_tokens=20, output_tokens=7, cost_usd=0.000_000_003)


async def publish(desk: Desk, tenant: str, request_id: str, answer: Published) -> WriteOutcome | Refusal:
    lease = await desk.ledger.claim(await desk.taken(), claim_of(request_id, tenant=tenant))
    if isinstance(lease, Refusal):
        return lease
    return await desk.ledger.complete(lease, answer, kept_ms=HOUR_MS)


def rows(desk: Desk, since: timedelta = MONTH, tenant: str | None = None) -> list[Usage]:
    return read(desk.redis, desk.now_ms, since, tenant)


async def test_a_result_counts_once_whoever_asks_again(desk: Desk) -> None:
    await publish(desk, "acme", "r", replace(COMPLETED, used=USED))
    for _ in range(3):
        assert await desk.runner.repeat("complete") is WriteOutcome.OK
    refused = await desk.taken()
    for _ in range(2):
        await desk.ledger.answer(refused, claim_of(tenant="acme"), replace(FAILED, used=Used(model="gpt-5.4-mini")))

    (row,) = rows(desk)
    assert (row.tenant, row.model, row.requests, row.failed) == ("acme", "gpt-5.4-mini", 2, 1)
    assert (row.input_tokens, row.cached_tokens, row.output_tokens, row.cost_usd) == (100, 20, 7, 0.000_000_003)


async def test_a_stale_failure_counts_nothing_and_a_stale_answer_once(desk: Desk) -> None:
    """A worker was killed or stalled: its delivery is another's by now."""
    stale = await desk.leased()
    await desk.reclaimed()
    (again,) = await desk.take()
    fresh = await desk.ledger.claim(again, claim_of())
    assert isinstance(fresh, Lease)

    assert await desk.ledger.complete(stale, FAILED, kept_ms=HOUR_MS) is WriteOutcome.SUPERSEDED
    assert rows(desk) == []
    await desk.ledger.complete(stale, replace(COMPLETED, used=USED), kept_ms=HOUR_MS)
    assert await desk.ledger.complete(fresh, replace(COMPLETED, used=USED), kept_ms=HOUR_MS) is WriteOutcome.DUPLICATE

    assert total(rows(desk)) == {
        "requests": 1, "failed": 0, "input_tokens": 100, "cached_tokens": 20, "output_tokens": 7,
        "cost_usd": 0.000_000_003,
    }  # fmt: skip


def drawn(rng: random.Random) -> Published:
    """Any answer; its result states its numbers."""
    used = Used(
        model=rng.choice(["", "m", "n"]),
        input_tokens=rng.randrange(10_000),
        output_tokens=rng.randrange(10**6),
        cost_usd=rng.randrange(10**6) / accounts.NANO,
    )
    kind = rng.choice([FAILED, FAILED_RETRYABLE, COMPLETED, COMPLETED])
    told = (1, int(kind.outcome == "failed"), used.input_tokens, used.output_tokens, used.cost_usd)
    return replace(kind, used=used, result=json.dumps(told).encode())


@pytest.mark.parametrize("seed", range(5))
async def test_the_sum_of_the_accounts_is_the_sum_of_the_results(desk: Desk, seed: int) -> None:
    """Over days, tenants, models, duplicates, failures that run anew and lost replies."""
    rng = random.Random(seed)
    for _ in range(60):
        await publish(desk, rng.choice("abc"), f"r{rng.randrange(20)}", drawn(rng))
        if rng.random() < 0.4:
            await desk.runner.repeat("complete")
        if rng.random() < 0.1:
            desk.advance(DAY_MS // 2)

    results = [json.loads(result) for _, _, result in desk.results()]
    sums = total(rows(desk))
    found = [sums[name] for name in ("requests", "failed", "input_tokens", "output_tokens", "cost_usd")]
    assert len(results) > 20
    assert found == pytest.approx([sum(numbers) for numbers in zip(*results, strict=True)], abs=1e-9)


async def test_a_day_has_room_for_so_many_and_the_rest_is_summed(desk: Desk) -> None:
    """A tenant with endless models leaves room for other tenants."""
    day = f"responses:usage:{desk.now_ms // DAY_MS}"
    flood = {f"flood\nmodel-{number}": "1 0 0 0 0 0" for number in range(accounts.ROWS // 2)}
    desk.redis.hset(day, mapping=flood)
    desk.redis.pexpire(day, HOUR_MS)
    for number in range(3):
        await publish(desk, "flood", f"f{number}", replace(COMPLETED, used=Used(model=f"more-{number}")))
    await publish(desk, "late", "l", replace(COMPLETED, used=USED))
    crowd = {f"tenant-{number}\n{accounts.OTHERS}": "1 0 0 0 0 0" for number in range(accounts.ROWS // 2)}
    desk.redis.hset(day, mapping=crowd)
    for number in range(3):
        await publish(desk, f"last-{number}", "r", replace(COMPLETED, used=USED))
    await publish(desk, "flood", "again", replace(COMPLETED, used=Used(model="model-7")))

    named = {(row.tenant, row.model): row.requests for row in rows(desk)}
    assert named["flood", accounts.OTHERS] == 3
    assert named["late", accounts.OTHERS] == 1
    assert named[accounts.OTHERS, accounts.OTHERS] == 3
    assert named["flood", "model-7"] == 2
    assert total(rows(desk))["requests"] == accounts.ROWS + 8


async def test_a_day_is_kept_for_its_time(desk: Desk) -> None:
    await publish(desk, "acme", "r", replace(COMPLETED, used=USED))
    day = desk.now_ms // DAY_MS
    assert desk.redis.pexpiretime(f"responses:usage:{day}") == (day + accounts.DAYS_KEPT) * DAY_MS

    desk.advance(2 * DAY_MS)
    assert len(rows(desk, timedelta(days=2))) == 1
    assert rows(desk, timedelta(days=1)) == []
    assert rows(desk, tenant="another") == []


async def test_accounts_that_cannot_be_written_hold_up_no_result(desk: Desk) -> None:
    desk.redis.set(f"responses:usage:{desk.now_ms // DAY_MS}", "in the way", px=HOUR_MS)

    assert await publish(desk, "acme", "r", replace(COMPLETED, used=USED)) is WriteOutcome.OK
    assert len(desk.results()) == 1


async def test_the_accounts_cost_a_request_two_commands(desk: Desk) -> None:
    """Beside those of the ledger: one HMGET and one HSET."""
    await publish(desk, "acme", "first", replace(COMPLETED, used=USED))
    lease = await desk.leased("second", tenant="acme")
    desk.redis.config_resetstat()
    await desk.ledger.complete(lease, replace(COMPLETED, used=USED), kept_ms=HOUR_MS)

    stats: Any = desk.redis.info("commandstats")
    calls = {
        name: stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("hmget", "hset", "hlen", "pexpireat")
    }
    assert calls == {"hmget": 2, "hset": 2, "hlen": 0, "pexpireat": 0}


async def test_results_that_are_published_together_read_a_row_once(desk: Desk) -> None:
    """Their sums are those of results that are published one by one."""
    leases = [await desk.leased(f"r{number}", tenant="ab"[number % 2]) for number in range(8)]
    desk.redis.config_resetstat()
    answers = (desk.ledger.complete(lease, replace(COMPLETED, used=USED), kept_ms=HOUR_MS) for lease in leases)
    assert set(await asyncio.gather(*answers)) == {WriteOutcome.OK}

    stats: Any = desk.redis.info("commandstats")
    runs = stats["cmdstat_evalsha"]["calls"]
    assert runs <= 3
    assert stats["cmdstat_hmget"]["calls"] <= len(leases) + 2 * runs
    assert {(row.tenant, row.requests, row.input_tokens, row.output_tokens) for row in rows(desk)} == {
        ("a", 4, 400, 28), ("b", 4, 400, 28),
    }  # fmt: skip
