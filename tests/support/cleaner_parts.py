"""A cleaner on a ledger whose clock the test moves, with streams that it may trim."""

from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import redis

from support.heard import Heard
from support.ledger_parts import LANES, RESULTS, Desk
from worker.queue.maintenance import Maintenance
from worker.queue.retention import RETAIN_S

DAY_MS: Final = 24 * 3_600_000
NODE: Final = 100
"""Entries that Redis trims together."""


@dataclass
class House:
    desk: Desk
    keeping: Maintenance
    heard: Heard

    async def retain(self) -> None:
        """A pass, as it is made once an interval."""
        await self.keeping.retain()
        self.desk.advance(round(RETAIN_S * 1000))

    @property
    def redis(self) -> Any:
        return self.desk.redis

    def publish(self, count: int, stream: str = RESULTS, *, age_ms: int = 0) -> list[str]:
        """Entries as the ledger writes them, of an age; their ids."""
        at = self.desk.now_ms - age_ms
        self.redis.sadd("responses:streams", stream)
        with self.redis.pipeline(transaction=False) as pipeline:
            for number in range(count):
                pipeline.xadd(stream, {"result": "x"}, id=f"{at}-{number + 1}")
            return [entry.decode() for entry in pipeline.execute()]

    def read(self, group: str, count: int, stream: str = RESULTS, *, acknowledge: bool = True) -> None:
        with suppress(redis.ResponseError):
            self.redis.xgroup_create(stream, group, "0")
        for _, entries in self.redis.xreadgroup(group, "c", {stream: ">"}, count=count):
            if acknowledge:
                self.redis.xack(stream, group, *(entry for entry, _ in entries))


def keeper(desk: Desk, heard: Heard) -> Maintenance:
    keeping = Maintenance(desk.ledger, desk.runner, LANES, timedelta(days=7), 5 * NODE, heard)
    keeping.kept.hold(LANES)
    return keeping
