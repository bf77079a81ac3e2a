"""The registry of a fleet: each worker says every two seconds that it lives, what it holds, and what it did meanwhile.

One script call per process and report, however many requests there were. A worker that is silent for a minute is
forgotten; one that leaves in good order is forgotten at once.
"""

import asyncio
import itertools
import json
import os
import secrets
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from worker import __version__
from worker.storage import keys
from worker.storage.commands import Command, Script
from worker.storage.replies import number
from worker.storage.scripts import ScriptError, ScriptRunner
from worker.telemetry.tally import Taken, Tally

REPORT_S: Final = 2.0
QUIET_REPORTS: Final = 3
"""An idle process says only every so many reports that it lives."""
SILENT_MS: Final = 10_000
"""A worker that said nothing for so long is in trouble, or dead."""
LEAVE_S: Final = 1.0
RATE_REPORTS: Final = 5
"""Reports over which the rate of answers is taken: ten seconds."""

REGISTER: Final = Command(
    name="register",
    keys=("workers", "loads", "history", "tenants", "moved"),
    args={"worker": str, "seq": int, "record": bytes, "counts": bytes, "tenants": bytes, "lanes": bytes},
    reply=number,
    even_when_full=True,
)
LEAVE: Final = Command(name="leave", keys=("workers", "loads"), args={"worker": str}, reply=number, even_when_full=True)
REGISTRY: Final = Script.load("operations/lua/registry.lua", commands=(REGISTER, LEAVE))


class Holding(NamedTuple):
    """The requests of one lane that a process holds."""

    waiting: int
    calling: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """The state of a process, as it tells it."""

    holds: Mapping[str, Holding]
    """By lane; lanes of which it holds nothing are missing."""
    draining: bool = False
    backlog: str = ""
    """The result stream with too many unread entries, for which it takes no work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """One worker process as it last described itself."""

    id: str
    host: str
    pid: int
    version: str
    lanes: Mapping[str, int]
    """The lanes that it serves, and their weights."""
    concurrency: int
    up_s: float
    """Since its start, when it last spoke."""
    silent_ms: int
    """Since it last spoke."""
    load: Load
    per_second: Mapping[str, float]
    """Answers of the last ten seconds, by lane."""

    @property
    def alive(self) -> bool:
        return self.silent_ms < SILENT_MS

    @property
    def held(self) -> int:
        return sum(each.waiting + each.calling for each in self.load.holds.values())

    @property
    def calling(self) -> int:
        return sum(each.calling for each in self.load.holds.values())


@dataclass(slots=True, kw_only=True)
class Registrar:
    """Reports for one process; `load` is asked at each report."""

    runner: ScriptRunner
    fleet: str
    lanes: Mapping[str, int]
    concurrency: int
    tally: Tally
    load: Callable[[], Load]
    worker: str = field(default_factory=lambda: f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}")
    _seq: int = 0
    _said: dict[str, Any] = field(default_factory=dict[str, Any])
    _began: float = field(default_factory=time.monotonic)
    _recent: deque[Counter[str]] = field(default_factory=lambda: deque[Counter[str]](maxlen=RATE_REPORTS))

    async def run(self) -> None:
        """Reports until cancelled, then takes leave."""
        try:
            for tick in itertools.count():
                with suppress(ScriptError):  # the counts change nothing for a request
                    await self.report(if_news=tick % QUIET_REPORTS != 0)
                await asyncio.sleep(REPORT_S)
        finally:
            with suppress(ScriptError, TimeoutError):
                async with asyncio.timeout(LEAVE_S):
                    await self.report()
                    await self.runner.call(REGISTRY, LEAVE, self._keys(), worker=self.worker)

    async def report(self, *, if_news: bool = False) -> None:
        """Says that this process lives, with its counts since the last report; `if_news`: unless all is as it was."""
        taken = self.tally.take()
        answers = _answers_by_lane(taken)
        self._recent.append(answers)
        said = self._record()
        if if_news and not taken.counts and said == self._said:
            return
        self._said = said
        self._seq += 1
        await self.runner.call(
            REGISTRY,
            REGISTER,
            self._keys(),
            worker=self.worker,
            seq=self._seq,
            record=json.dumps(said | {"up_s": round(time.monotonic() - self._began, 1)}).encode(),
            counts=_flat(taken.counts),
            tenants=_flat(taken.tenants),
            lanes=json.dumps(list(answers)).encode(),
        )

    def _record(self) -> dict[str, Any]:
        load = self.load()
        recent = sum(self._recent, Counter[str]())
        return {
            "v": 1,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "version": __version__,
            "lanes": dict(self.lanes),
            "concurrency": self.concurrency,
            "holds": dict(load.holds),
            "draining": load.draining,
            "backlog": load.backlog,
            "per_second": {lane: round(count / len(self._recent) / REPORT_S, 2) for lane, count in recent.items()},
        }

    def _keys(self) -> keys.Keys:
        return keys.FLEET | keys.fleet(self.fleet)


def read_workers(redis: Any, fleet: str, now_ms: int) -> list[Worker]:
    """The workers of a fleet, those that were silent for up to a minute included; raises redis.RedisError."""
    names = keys.fleet(fleet)
    with redis.pipeline(transaction=False) as batch:
        batch.zrange(names["workers"], 0, -1, withscores=True)
        batch.hgetall(names["loads"])
        seen, loads = batch.execute()
    found = ((name.decode(), now_ms - round(at), loads.get(name)) for name, at in seen)
    workers = [_worker(name, max(0, silent_ms), raw) for name, silent_ms, raw in found if raw]
    return sorted(workers, key=lambda worker: worker.id)


def _worker(name: str, silent_ms: int, raw: bytes) -> Worker:
    """Reads what `Registrar` of this release or the next wrote."""
    record: dict[str, Any] = json.loads(raw.partition(b" ")[2])
    return Worker(
        id=name,
        host=record["host"],
        pid=record["pid"],
        version=record["version"],
        lanes=record["lanes"],
        concurrency=record["concurrency"],
        up_s=record["up_s"],
        silent_ms=silent_ms,
        load=Load(
            holds={lane: Holding(*counts[:2]) for lane, counts in record["holds"].items()},
            draining=record["draining"],
            backlog=record["backlog"],
        ),
        per_second=record["per_second"],
    )


def _answers_by_lane(taken: Taken) -> Counter[str]:
    answers = Counter[str]()
    for name, count in taken.counts.items():
        what, lane, _ = name.split(" ", 2)
        if what == "answers":
            answers[lane] += count
    return answers


def _flat(counts: Mapping[str, int]) -> bytes:
    pairs: Sequence[str | int] = [part for pair in counts.items() for part in pair]
    return json.dumps(pairs).encode()
