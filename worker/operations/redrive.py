"""Requests that ended in a retryable failure, and their way back: each runs once more, behind all live traffic.

A redriven message goes to the back of its lane's lowest priority, with a deadline of its own. Its id runs anew, with no
attempts behind it, and gets a second result. An id that was answered or enqueued since then is left alone.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, NamedTuple

from api_contracts.queues import PRIORITIES, lane_list
from worker.operations.overview import server_ms
from worker.operations.usage import average
from worker.operations.usage import read as read_usage
from worker.queue.failed_bodies import FAILED_BODIES, REDRIVE, Redrive
from worker.storage import keys
from worker.storage.scripts import call_blocking

PAGE: Final = 1000
WITHIN: Final = timedelta(hours=24)
"""The time that a redriven request has for its answer, where nobody says more."""
AVERAGED: Final = timedelta(days=7)


class FailedRequest(NamedTuple):
    """The facts of one request whose message is kept; nothing of its content."""

    entry_id: str
    lane: str
    code: str
    tenant: str
    request_id: str
    size: int
    """Of the message, in bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failures:
    """The failed requests that are meant; nothing set means all."""

    code: str | None = None
    tenant: str | None = None
    lane: str | None = None
    since: timedelta | None = None

    def includes(self, failed: FailedRequest) -> bool:
        """Whether all but the age fits; Redis is asked for that."""
        return (
            self.code in (None, failed.code)
            and self.tenant in (None, failed.tenant)
            and self.lane in (None, failed.lane)
        )

    def __str__(self) -> str:
        """As the options of `redrive`."""
        given = {
            "code": self.code,
            "tenant": self.tenant,
            "lane": self.lane,
            "since": self.since and f"{self.since.total_seconds():.0f}s",
        }
        return " ".join(f"--{name} {value}" for name, value in given.items() if value is not None) or "--all"


def counted(redis: Any, found: Sequence[FailedRequest], tenant: str | None = None) -> dict[str, Any]:
    """Requests and bytes, by code too; and the tokens and cost to expect, at the average of the last week's answers."""
    codes = Counter(failed.code for failed in found)
    counts = {"found": len(found), "bytes": sum(failed.size for failed in found), "by_code": dict(codes.most_common())}
    one = average(read_usage(redis, server_ms(redis), AVERAGED, tenant)) if found else None
    if one is None:
        return counts
    cost = {"cost_usd": round(one.cost_usd * len(found), 4)} if one.cost_usd else {}
    return counts | {"tokens": round(one.tokens * len(found))} | cost


@dataclass(frozen=True, slots=True)
class FailedRequests:
    """The kept requests behind one blocking client. Every method raises redis.RedisError."""

    redis: Any

    def find(self, failures: Failures) -> Iterator[FailedRequest]:
        """The requests meant, the one that failed first first; read in pages, without their messages."""
        at = "-" if failures.since is None else str(self._ago_ms(failures.since))
        while page := self.redis.xrange(keys.FAILED_STREAM, min=at, count=PAGE):
            yield from filter(failures.includes, (_read(entry_id, facts) for entry_id, facts in page))
            at = f"({page[-1][0].decode()}"

    def groups(self, most: int) -> Mapping[tuple[str, str], int]:
        """Requests by lane and code, the most first, of the newest so many."""
        newest = (_read(entry_id, facts) for entry_id, facts in self.redis.xrevrange(keys.FAILED_STREAM, count=most))
        return dict(Counter((failed.lane, failed.code) for failed in newest).most_common())

    def redrive(self, failed: FailedRequest, *, within: timedelta) -> Redrive:
        """Sends one request back to its lane; `within` is how long from now its answer is useful.

        It is safe to repeat when the reply was lost.
        """
        return call_blocking(
            self.redis,
            FAILED_BODIES,
            REDRIVE,
            keys.waiting_list(lane_list(failed.lane, PRIORITIES[-1])) | keys.request(failed.tenant, failed.request_id),
            id=failed.entry_id,
            lane=failed.lane,
            within_ms=round(within.total_seconds() * 1000),
        )

    def _ago_ms(self, age: timedelta) -> int:
        return max(0, server_ms(self.redis) - round(age.total_seconds() * 1000))


def run_anew(redis: Any, found: Iterable[FailedRequest], *, within: timedelta = WITHIN) -> dict[str, int]:
    """Sends each back to its lane once; returns how many went, and how many were left alone."""
    kept = FailedRequests(redis)
    done = Counter(kept.redrive(failed, within=within) for failed in found)
    return {"redriven": done[Redrive.REDRIVEN], "left_alone": done.total() - done[Redrive.REDRIVEN]}


def _read(entry_id: bytes, facts: dict[bytes, bytes]) -> FailedRequest:
    lane, code, tenant, request_id = (facts[name].decode() for name in (b"lane", b"code", b"tenant", b"request_id"))
    return FailedRequest(entry_id.decode(), lane, code, tenant, request_id, int(facts[b"size"]))
