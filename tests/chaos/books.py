"""The books: sent against answered and seen by the gateway; lost, doubled, paid twice, recovered how soon."""

import contextlib
import itertools
import math
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from support.polling import wait_until
from support.producer import Producer

from worker.devtools.simulator import CLIENT_LEFT, ReceivedCall
from worker.operations.overview import server_ms
from worker.operations.usage import read, total
from worker.queue.leases import LEASE_MS

RECOVERED_WITHIN_S: Final = 20.0
LEASE_S: Final = LEASE_MS / 1000
_KILL_SEEN_WITHIN_S: Final = 0.5
_NAMED: Final = 10


@dataclass(slots=True)
class Diary:
    """One act against the fleet, in Unix time."""

    events: Counter[str] = field(default_factory=Counter[str])
    kills: list[float] = field(default_factory=list[float])
    returns: list[float] = field(default_factory=list[float])
    """When Redis was back after it could not be reached; every lease is given its full time again then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """The result of one seed; all lists name requests."""

    sent: int
    failed: int
    lost: list[str]
    answered_twice: list[str]
    unexplained: list[str]
    leftovers: dict[str, int]
    accounts_off: list[str]
    """Sums of `usage` that are not those of the results."""
    paid_twice: int
    recoveries: list[float]
    """From a kill until what its worker held was back in its lane, s."""
    called_again: list[float]
    """From a kill until a call that it cut off was made again, s: with all else that struck meanwhile."""

    @property
    def balanced(self) -> bool:
        in_time = p99(self.recoveries) <= RECOVERED_WITHIN_S
        wrong = self.lost or self.answered_twice or self.unexplained or self.leftovers or self.accounts_off
        return in_time and not wrong

    @classmethod
    def total(cls, books: Iterable["Books"]) -> "Books":
        each = list(books)
        return cls(
            sent=sum(book.sent for book in each),
            failed=sum(book.failed for book in each),
            lost=[found for book in each for found in book.lost],
            answered_twice=[found for book in each for found in book.answered_twice],
            unexplained=[found for book in each for found in book.unexplained],
            leftovers={name: size for book in each for name, size in book.leftovers.items()},
            accounts_off=[found for book in each for found in book.accounts_off],
            paid_twice=sum(book.paid_twice for book in each),
            recoveries=[found for book in each for found in book.recoveries],
            called_again=[found for book in each for found in book.called_again],
        )

    def line(self) -> str:
        return (
            f"{self.sent} sent, {self.failed} answered with a failure, {len(self.lost)} lost, "
            f"{len(self.answered_twice)} answered twice, {self.paid_twice} paid twice, {len(self.unexplained)} of them "
            f"unexplained; back in its lane p99 {p99(self.recoveries):.1f} s after a kill ({len(self.recoveries)}), "
            f"called again p50 {median(self.called_again):.1f} s"
        )

    def violations(self) -> list[str]:
        """The findings that must not be, with the first few names."""
        named = {"lost": self.lost, "answered twice": self.answered_twice, "paid unexplained": self.unexplained}
        found = [f"{what}: {', '.join(names[:_NAMED])}" for what, names in named.items() if names]
        found += [f"left over: {self.leftovers}"] if self.leftovers else []
        found += [f"accounts: {', '.join(self.accounts_off)}"] if self.accounts_off else []
        slow = [f"{seconds:.1f}" for seconds in sorted(self.recoveries) if seconds > RECOVERED_WITHIN_S]
        return found + ([f"recovered late, s: {', '.join(slow[-_NAMED:])}"] if slow else [])


def balance(
    producer: Producer, calls: Iterable[ReceivedCall], ids: list[str], diary: Diary, recoveries: list[float]
) -> Books:
    answers: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for result in producer.entries():
        answers[result["request_id"]].append(result)
    calls_of: dict[str, list[ReceivedCall]] = defaultdict(list)
    for call in calls:
        calls_of[call.tag or ""].append(call)
    paid = {request_id: sum(map(was_paid, calls_of[request_id])) for request_id in ids}
    return Books(
        sent=len(ids),
        failed=sum(result["outcome"] == "failed" for results in answers.values() for result in results),
        lost=[request_id for request_id in ids if not answers[request_id]],
        answered_twice=[request_id for request_id in ids if len(answers[request_id]) > 1],
        unexplained=[request_id for request_id in ids if paid[request_id] > 1 + excuses(answers[request_id])],
        leftovers=leftovers(producer),
        accounts_off=accounts_off(producer),
        paid_twice=sum(count > 1 for count in paid.values()),
        recoveries=recoveries,
        called_again=[found for kill in diary.kills for found in called_again(calls_of, kill, diary.returns)],
    )


def accounts_off(producer: Producer) -> list[str]:
    """Whether `usage` adds up to the results that were published."""
    results = producer.entries()
    responses: list[Any] = [result["response"] or {} for result in results]
    spent: list[Any] = [response.get("usage") or {} for response in responses]
    wanted = {
        "requests": len(results),
        "failed": sum(result["outcome"] == "failed" for result in results),
        "input_tokens": sum(usage.get("input_tokens", 0) for usage in spent),
        "output_tokens": sum(usage.get("output_tokens", 0) for usage in spent),
    }
    counted = total(read(producer.redis, server_ms(producer.redis), timedelta(days=2)))
    return [f"{name} {counted[name]} instead of {sum_}" for name, sum_ in wanted.items() if counted[name] != sum_]


def was_paid(call: ReceivedCall) -> bool:
    """Answered well, or left by its caller while the model may have been running."""
    return call.status in (200, CLIENT_LEFT)


def excuses(results: list[dict[str, Any]]) -> int:
    """Attempts that say of themselves that they may have been billed."""
    return sum(attempt["maybe_billed"] for result in results for attempt in result["attempts"])


def called_again(calls_of: dict[str, list[ReceivedCall]], killed_at: float, returns: list[float]) -> list[float]:
    """For each call that the kill cut off: until its request was called again, since Redis could last be reached."""
    found: list[float] = []
    for calls in calls_of.values():
        for call, following in itertools.pairwise(calls):
            ended = call.wall + (call.duration_s or 0)
            if call.status == CLIENT_LEFT and abs(ended - killed_at) < _KILL_SEEN_WITHIN_S:
                since = max([killed_at, *(back for back in returns if back < following.wall)])
                found.append(following.wall - since)
    return found


def leftovers(producer: Producer) -> dict[str, int]:
    """The things that are still somewhere; a permit that a killed worker was granted ends by itself, within a lease."""

    def held() -> dict[str, int]:
        found = producer.leftovers()
        found["permits"] = producer.redis.zcount("responses:permits:default", time.time() * 1000, "+inf")
        return {name: size for name, size in found.items() if size}

    with contextlib.suppress(AssertionError):
        wait_until(lambda: not held(), within_s=2 * LEASE_S)
    return held()


def median(durations: list[float]) -> float:
    return statistics.median(durations) if durations else 0.0


def p99(durations: list[float]) -> float:
    ordered = sorted(durations)
    return ordered[math.ceil(0.99 * len(ordered)) - 1] if ordered else 0.0
