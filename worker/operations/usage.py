"""The accounts as people ask for them: what each tenant used of each model, by day (`worker/queue/lua/usage.lua`)."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final, NamedTuple

from worker.queue.usage import DAYS_KEPT, NANO
from worker.storage import keys

DAY_MS: Final = 24 * 3_600_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """The sums over the published results of one tenant, model and day; `day` is UTC, by the time of publication.

    `cost_usd` counts results whose price was configured. `tenant` and `model` may be `(others)`.
    """

    day: date
    tenant: str
    model: str
    requests: int
    failed: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    cost_usd: float


def read(redis: Any, now_ms: int, since: timedelta, tenant: str | None = None) -> list[Usage]:
    """Every row of the days that the last `since` touches, the newest day first, there the most tokens first.

    Raises redis.RedisError.
    """
    today = now_ms // DAY_MS
    first = max((now_ms - round(since.total_seconds() * 1000)) // DAY_MS, today - DAYS_KEPT + 1)
    days = range(today, first - 1, -1)
    with redis.pipeline(transaction=False) as batch:
        for day in days:
            batch.hgetall(f"{keys.FLEET['usage']}:{day}")
        replies = batch.execute()
    found = [row for day, rows in zip(days, replies, strict=True) for row in _rows(day, rows)]
    wanted = [row for row in found if tenant in (None, row.tenant)]
    return sorted(wanted, key=lambda row: (-row.day.toordinal(), -_tokens(row), row.tenant, row.model))


def total(rows: Iterable[Usage]) -> Mapping[str, int | float]:
    """The sums over all rows, by the names of their numbers."""
    rows = list(rows)
    names = ("requests", "failed", "input_tokens", "cached_tokens", "output_tokens", "cost_usd")
    return {name: sum(getattr(row, name) for row in rows) for name in names}


class Average(NamedTuple):
    """Of an answered request."""

    tokens: float
    cost_usd: float


def average(rows: Iterable[Usage]) -> Average | None:
    """None where nothing was answered."""
    sums = total(rows)
    answered = sums["requests"] - sums["failed"]
    if not answered:
        return None
    return Average((sums["input_tokens"] + sums["output_tokens"]) / answered, sums["cost_usd"] / answered)


def _rows(day: int, rows: Mapping[bytes, bytes]) -> Iterator[Usage]:
    on = datetime.fromtimestamp(day * DAY_MS / 1000, UTC).date()
    for name, counts in rows.items():
        tenant, _, model = name.decode(errors="replace").partition("\n")
        requests, failed, input_tokens, cached_tokens, output_tokens, cost = map(int, counts.split())
        yield Usage(
            day=on,
            tenant=tenant,
            model=model,
            requests=requests,
            failed=failed,
            input_tokens=input_tokens,
            cached_tokens=cached_tokens,
            output_tokens=output_tokens,
            cost_usd=cost / NANO,
        )


def _tokens(row: Usage) -> int:
    return row.input_tokens + row.output_tokens
