"""Every kind of error that is loaded, at every `await` between pop and answer: of its room, and beneath it."""

import asyncio
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest
import redis
from support.awaits import CARRIED, Fault, sites
from support.errors import STUBBORN, every
from support.exits import BENEATH, OWN, Stage, open_stage
from support.ledger_parts import eventually
from support.road import open_road
from support.ways import WAYS

from worker.devtools.devstack import Simulator

POPPING: Final = (
    "queue.fetcher.Fetcher.run: self._take",
    "queue.fetcher.Fetcher._take: asyncio.shield",
    "queue.fetcher.Fetcher._take: popping",
    "queue.ledger.Ledger.pop: self.runner.call",
)

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def stage(valkey: redis.Redis, gateway: Simulator, redis_url: str, tmp_path: Path) -> Generator[Stage]:
    with open_stage(valkey, gateway, redis_url, tmp_path) as stage:
        yield stage


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("site", sites(OWN))
async def test_every_error_at_every_await_leaves_one_result(stage: Stage, site: str, after: bool) -> None:  # noqa: FBT001  # drawn, not passed
    await stage.strike(site, every(), after=after)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("room", ["queue", "admission", "gateway", "checks", "storage"])
async def test_every_error_beneath_leaves_one_result(stage: Stage, room: str, after: bool) -> None:  # noqa: FBT001  # drawn, not passed
    """At each place there that some way passes; the others belong to jobs of the process."""
    passing = await stage.passing()
    found = [site for site in sites(BENEATH) if site.startswith(f"{room}.") and site in passing]
    assert found

    for site in found:
        await stage.strike(site, every(), after=after, each_time=False)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("site", POPPING)
async def test_a_pop_that_breaks_loses_nothing(stage: Stage, site: str, after: bool) -> None:  # noqa: FBT001  # drawn, not passed
    """The process may end by it; the next one takes over."""
    struck = 0
    for number, error in enumerate([*STUBBORN, *every()]):
        way, fault = WAYS[0], Fault(site=site, error=error, after=after)
        stage.client.flushall()  # pyright: ignore[reportUnknownMemberType]  # untyped kwargs
        async with open_road(stage.client, stage.redis_url, stage.gateway.url, stage.path, 1) as road:
            await way.ready(road, [way.message(number)])
            token = CARRIED.set(fault)
            fetching = asyncio.create_task(road.service.fetch())
            CARRIED.reset(token)
            await eventually(lambda: fault.struck)  # noqa: B023  # awaited here
            fetching.cancel()
            with suppress(Exception, asyncio.CancelledError):
                await fetching
            await road.drive()
            assert [row[0] for row in road.desk.results()] == [way.id(number)], f"{error!r}"
            assert road.held() == {}
            struck += fault.struck
    assert struck > 200
