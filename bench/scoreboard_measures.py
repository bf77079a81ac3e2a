"""The measures of a run: pure functions of the records of the gateway and Redis."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from bench.scoreboard_world import Record
from worker.devtools.simulator import ReceivedCall

NOT_SEEN: Final = math.inf
"""The row holds no bar where an expected event did not happen."""

Limit = Sequence[tuple[float, float]]
"""The rate that fits, as steps: (seconds after the first call, units a second from then on)."""


@dataclass(frozen=True, slots=True)
class Played:
    """A scenario's run. `measures` are such that less is better; `limit` is of what the calls are counted in."""

    record: Record
    measures: Mapping[str, float]
    limit: Limit
    notes: Mapping[str, float]
    """The measures that have no bar but explain the rest."""


def ideal_s(amount: float, limit: Limit) -> float:
    """The shortest time in which so much passes under a limit that changes."""
    ends = [*(start for start, _ in limit[1:]), math.inf]
    for (start, rate), end in zip(limit, ends, strict=True):
        if amount <= rate * (end - start):
            return start + max(0.0, amount) / rate
        amount -= rate * (end - start)
    raise ValueError("a limit without steps")


def span_s(calls: Sequence[ReceivedCall]) -> float:
    """Between the arrivals of the first and the last."""
    return calls[-1].at_s - calls[0].at_s if calls else math.inf


def lost(record: Record) -> int:
    """Requests without a good answer, and answers given twice."""
    good = {result["request_id"] for result in record.results if result["outcome"] == "completed"}
    answered = {result["request_id"] for result in record.results}
    return record.enqueued - len(good) + len(record.results) - len(answered)


def basics(record: Record) -> dict[str, float]:
    """The measures of every scenario."""
    refused = sum(map(is_refused, record.calls))
    return {"lost": lost(record), "429s": refused / len(record.calls) if record.calls else math.inf}


def is_refused(call: ReceivedCall) -> bool:
    return call.status == 429


def passed(calls: Sequence[ReceivedCall]) -> list[ReceivedCall]:
    return [call for call in calls if call.status == 200]


def after(calls: Sequence[ReceivedCall], seconds: float) -> list[ReceivedCall]:
    """The calls later than so long after the first."""
    return [call for call in calls if call.at_s > calls[0].at_s + seconds]


def between(calls: Sequence[ReceivedCall], start_ms: float, end_ms: float) -> list[ReceivedCall]:
    """The calls that arrived in between, in Unix time: one machine, so the server's clock and the gateway's are one."""
    return [call for call in calls if start_ms < call.wall * 1000 < end_ms]


def between_s(calls: Sequence[ReceivedCall], start_s: float, end_s: float) -> list[ReceivedCall]:
    """The same in the gateway's own seconds."""
    return [call for call in calls if start_s < call.at_s <= end_s]


def wait_ms(result: Mapping[str, Any]) -> float:
    """From enqueueing to the start of the first call."""
    return _ms(result["attempts"][0]["started_at"]) - _ms(result["timing"]["enqueued_at"])


def percentile(values: Sequence[float], share: float) -> float:
    """By nearest rank; infinite of nothing."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else math.inf


def per_second(calls: Sequence[ReceivedCall]) -> dict[str, list[int]]:
    """Arrivals in each second after the first call: passed or under way, 429, and other failures."""
    seconds = math.floor(span_s(calls)) + 1 if calls else 0
    counts = {name: [0] * seconds for name in ("passed", "refused", "failed")}
    for call in calls:
        name = "passed" if call.status in (200, None) else "refused" if is_refused(call) else "failed"
        counts[name][math.floor(call.at_s - calls[0].at_s)] += 1
    return counts


def _ms(timestamp: str) -> float:
    return datetime.fromisoformat(timestamp).timestamp() * 1000
