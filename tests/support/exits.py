"""One result and nothing held afterwards: the check behind every fault between pop and answer."""

import pkgutil
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import redis

import worker.admission
import worker.checks
import worker.gateway
import worker.queue
import worker.request
import worker.storage
from support.awaits import Fault, instrumented
from support.captured_log import captured_log
from support.errors import CANARY
from support.ledger_parts import LEASE_MS, eventually
from support.road import Road, open_road
from support.ways import WAYS, Way
from worker.devtools.devstack import Simulator


def _modules(*rooms: Any) -> list[str]:
    return [f"{room.__name__}.{found.name}" for room in rooms for found in pkgutil.iter_modules(room.__path__)]


OWN: Final = [*_modules(worker.request), "worker.tasks", "worker.runtime.executor", "worker.runtime.task_runner"]
"""All that is awaited here is awaited for a request."""

BENEATH: Final = [
    module
    for module in _modules(worker.queue, worker.admission, worker.gateway, worker.checks, worker.storage)
    if module != "worker.checks.process"
]
"""Some of what is awaited here is."""

_passing: dict[str, Way] = {}


@dataclass(frozen=True)
class Stage:
    """Servers that are emptied for every road."""

    client: redis.Redis
    gateway: Simulator
    redis_url: str
    path: Path

    async def passing(self) -> dict[str, Way]:
        """Each place with the first way that passes it; found once for a whole run."""
        for way in () if _passing else WAYS:
            (fault,) = await self.go(way, [{}])
            for site in fault.passed:
                _passing.setdefault(site, way)
        return _passing

    async def strike(self, site: str, errors: Sequence[BaseException], *, each_time: bool = True, **said: Any) -> None:
        """A request for each error, which meets it here; each gets one result, and nothing is held.

        Some places are passed only now and then: `each_time` is false for them.
        """
        way = (await self.passing()).get(site)
        assert way is not None, "no way passes here"
        faults = await self.go(way, [{"site": site, "error": error, **said} for error in errors])
        missed = [repr(fault.error) for fault in faults if not fault.struck]
        assert missed == [] or (not each_time and len(missed) < len(faults)), missed

    async def go(self, way: Way, faults: Sequence[dict[str, Any]]) -> list[Fault]:
        numbered = list(enumerate(faults))
        groups = [numbered] if way.together else [[each] for each in numbered]
        return [fault for group in groups for fault in await self._go(way, dict(group))]

    async def _go(self, way: Way, faults: dict[int, dict[str, Any]]) -> list[Fault]:
        """One process takes them all."""
        self.client.flushall()  # pyright: ignore[reportUnknownMemberType]  # untyped kwargs
        self.gateway.reset()
        async with open_road(self.client, self.redis_url, self.gateway.url, self.path, way.routes) as road:
            with way.around():
                await way.ready(road, [way.message(number) for number in faults])
                made = {number: way.fault(road, **said) for number, said in faults.items()}
                await road.drive(made)
            await _check(way, road, made)
        return list(made.values())


async def _check(way: Way, road: Road, faults: dict[int, Fault]) -> None:
    """With a result for each; as a dead letter alone where nobody is named, or where no result can ever be written."""
    answered, dead = Counter(row[0] for row in road.desk.results()), road.desk.redis.xlen("responses:dead")
    if way.unanswerable:
        assert (dead, answered.total()) == (len(faults), 0)
    elif all(fault.times == 1 for fault in faults.values()):
        wrong = [repr(fault.error) for number, fault in faults.items() if answered[way.id(number)] != 1]
        if wrong or answered.total() != len(faults):
            raise AssertionError(f"{answered.total()} results for {len(faults)} requests; not one after {wrong}")
    else:
        assert max(answered.values(), default=1) == 1
        assert dead + answered.total() >= len(faults)
    # Permits of several routes, and those of calls whose report failed, end with the lease.
    lost = way.routes > 1 or any(fault.struck and _reports(fault.site) for fault in faults.values())
    permits_ms = LEASE_MS if lost else 0
    with suppress(TimeoutError):  # a permit that nobody took goes back behind the end of its request
        await eventually(lambda: not road.held(permits_ms=permits_ms))
    if held := road.held(permits_ms=permits_ms):
        raise AssertionError(f"held afterwards: {held}")


def _reports(site: str) -> bool:
    """Whether the end of a call, or that there is none, is told to admission here."""
    return "report" in site or "Admission.tell:" in site or "give_back" in site


@contextmanager
def open_stage(client: redis.Redis, gateway: Simulator, redis_url: str, path: Path) -> Generator[Stage]:
    """A stage on which faults strike; the text of no error is in the log in the end."""
    with instrumented([*OWN, *BENEATH]), captured_log() as lines:
        yield Stage(client, gateway, redis_url, path)
        assert [line for line in lines() if CANARY in str(line)] == []
