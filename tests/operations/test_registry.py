"""Workers say that they live and what they did; a fleet's last hour is read from what they said."""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from support.ledger_parts import RecordingRunner
from support.movable_clock import MovableClock, on_movable_clock

from worker.operations import registry as registry_module
from worker.operations.history import MINUTE_MS, History, Span, last_minute, total
from worker.operations.registry import REGISTRY, Holding, Load, Registrar, read_workers
from worker.storage.connection import RedisTarget
from worker.telemetry.tally import MOST_COUNTS, MOST_TENANTS, Tally, bucket, middle_ms

KEPT_KEYS = 5
"""Workers, loads, moved; and of each minute its counts and its tenants."""


@dataclass
class Office(MovableClock):
    """One fleet's registry, and the same Valkey from outside."""

    runner: RecordingRunner

    def registrar(self, worker: str = "a", fleet: str = "default", **load: Any) -> Registrar:
        holds: Mapping[str, Holding] = load.pop("holds", {"interactive": Holding(2, 3)})
        return Registrar(
            runner=self.runner,
            fleet=fleet,
            lanes={"interactive": 4},
            concurrency=10,
            tally=Tally(),
            load=lambda: Load(holds=holds, **load),
            worker=worker,
        )

    def hour(self, fleet: str = "default") -> list[Span]:
        return History(fleet).read(self.redis, self.now_ms)


@pytest.fixture
async def office(valkey: Any, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Office]:
    runner = RecordingRunner(RedisTarget.parse(redis_url).async_client())
    monkeypatch.setattr(registry_module, "REGISTRY", on_movable_clock(REGISTRY))
    opened = Office(valkey, runner)
    opened.set_clock((opened.now_ms // MINUTE_MS + 1) * MINUTE_MS)
    yield opened
    await runner.aclose()


async def test_a_worker_is_known_until_it_leaves(office: Office) -> None:
    registrar = office.registrar(draining=True)
    registrar.tally.answered("interactive", "completed", "", "acme", 100)
    await registrar.report()

    (worker,) = read_workers(office.redis, "default", office.now_ms)
    assert (worker.id, worker.lanes, worker.concurrency, worker.alive) == ("a", {"interactive": 4}, 10, True)
    assert (worker.held, worker.calling, worker.load.draining) == (5, 3, True)
    assert worker.per_second == {"interactive": 0.5}
    await office.runner.call(REGISTRY, registry_module.LEAVE, registrar._keys(), worker="a")  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # as `run` does on its way out
    assert read_workers(office.redis, "default", office.now_ms) == []


async def test_a_silent_worker_is_told_apart_and_then_forgotten(office: Office) -> None:
    await office.registrar("a").report()
    office.advance(20_000)
    await office.registrar("b").report()
    told = {
        worker.id: (worker.alive, worker.silent_ms) for worker in read_workers(office.redis, "default", office.now_ms)
    }
    office.advance(45_000)
    await office.registrar("b").report()

    assert told == {"a": (False, 20_000), "b": (True, 0)}
    assert [worker.id for worker in read_workers(office.redis, "default", office.now_ms)] == ["b"]


async def test_fleets_do_not_see_each_other(office: Office) -> None:
    blue = office.registrar(fleet="blue")
    blue.tally.answered("interactive", "completed", "", "acme", 100)
    await blue.report()

    assert read_workers(office.redis, "default", office.now_ms) == []
    assert total(office.hour()).answers() == 0
    assert total(office.hour("blue")).answers() == 1


async def test_the_same_report_again_counts_nothing(office: Office) -> None:
    """A reply may be lost: then the call is made again."""
    registrar = office.registrar()
    registrar.tally.answered("interactive", "failed", "rate_limited", "acme", 100)
    await registrar.report()
    await office.runner.repeat("register")
    await office.runner.repeat("register")

    assert total(office.hour()).failures() == {"rate_limited": 1}


async def test_an_hour_adds_up_by_lane_code_and_minute(office: Office) -> None:
    one, two = office.registrar("a"), office.registrar("b")
    for registrar in (one, two):
        registrar.tally.answered("interactive", "completed", "", "acme", 1_000)
        registrar.tally.answered("batch", "failed", "upstream_error", "globex", 9_000)
        registrar.tally.claimed("interactive", 10)
        registrar.tally.called("interactive", "default", "rate_limited", 50, throttled=True)
        await registrar.report()
    office.advance(MINUTE_MS)
    one.tally.answered("batch", "incomplete", "incomplete_max_tokens", "acme", 5_000)
    await one.report()

    minutes = office.hour()
    hour = total(minutes)
    assert [span.answers() for span in minutes[-3:]] == [0, 4, 1]
    assert hour.by_which("answers") == {"completed": 2, "failed": 2, "incomplete": 1}
    assert hour.by_whom("answers") == {"interactive": 2, "batch": 3}
    assert hour.failures("batch") == {"upstream_error": 2, "incomplete_max_tokens": 1}
    assert hour.throttled("interactive") == 2
    assert hour.by_which("calls", "default") == {"rate_limited": 2}
    assert hour.percentile_ms("total", 0.5, "interactive") == pytest.approx(1_000, rel=0.1)
    assert hour.percentile_ms("called", 0.95) == pytest.approx(50, rel=0.1)
    assert hour.percentile_ms("queued", 0.5, "batch") is None


async def test_the_last_minute_slides(office: Office) -> None:
    registrar = office.registrar()
    for _ in range(10):
        registrar.tally.answered("interactive", "completed", "", "acme", 10)
    await registrar.report()
    office.advance(MINUTE_MS + MINUTE_MS // 2)

    assert last_minute(office.hour(), office.now_ms).answers() == 5
    office.advance(MINUTE_MS)
    assert last_minute(office.hour(), office.now_ms).answers() == 0


async def test_a_reader_that_goes_on_reads_closed_minutes_once(office: Office) -> None:
    registrar, reader = office.registrar(), History("default")
    registrar.tally.answered("interactive", "completed", "", "acme", 10)
    await registrar.report()
    assert total(reader.read(office.redis, office.now_ms)).answers() == 1
    office.advance(5 * MINUTE_MS)
    reader.read(office.redis, office.now_ms)
    office.redis.flushall()
    office.advance(1_000)

    assert total(reader.read(office.redis, office.now_ms)).answers() == 1
    assert reader.tenants() == {"acme": 1}


async def test_a_busy_tenant_is_never_crowded_out(office: Office) -> None:
    registrar, history = office.registrar(), History("default")
    for round_ in range(4):
        for _ in range(50):
            registrar.tally.answered("interactive", "completed", "", "flood", None)
        for number in range(3 * MOST_TENANTS):
            registrar.tally.answered("interactive", "completed", "", f"t{round_}-{number}", None)
        await registrar.report()
    history.read(office.redis, office.now_ms)

    assert history.tenants().most_common(1)[0] == ("flood", 200)
    assert len(history.tenants()) <= MOST_TENANTS


async def test_all_of_it_is_bounded_in_time(office: Office) -> None:
    """However long a fleet works, there are the keys of an hour."""
    registrar = office.registrar()
    for _ in range(4):
        registrar.tally.answered("interactive", "completed", "", "acme", 10)
        await registrar.report()
        office.advance(MINUTE_MS)
    names = [name for name in office.redis.scan_iter() if name.startswith(b"responses:")]

    assert len(names) == 3 + 2 * 4
    assert all(office.redis.pttl(name) > 0 for name in names)


async def test_an_idle_worker_says_little(office: Office) -> None:
    """Only news is told at once: a request, or another load."""
    load = {"interactive": Holding(0, 0)}
    registrar = office.registrar(holds=load)
    registrar.tally.answered("interactive", "completed", "", "acme", 10)
    await registrar.report(if_news=True)
    for _ in range(registry_module.RATE_REPORTS):  # until the rate is nothing again
        await registrar.report(if_news=True)
    office.redis.delete("responses:workers:default")
    await registrar.report(if_news=True)
    assert not office.redis.exists("responses:workers:default")
    load["interactive"] = Holding(1, 0)
    await registrar.report(if_news=True)
    assert office.redis.exists("responses:workers:default")


def test_a_report_is_bounded_and_the_rest_follows() -> None:
    tally = Tally()
    for number in range(MOST_COUNTS + 5):
        tally.called("interactive", f"route-{number}", "", 1, throttled=False)

    assert (len(tally.take().counts), len(tally.take().counts)) == (MOST_COUNTS, MOST_COUNTS)
    assert len(tally.take().counts) == 10
    assert tally.take().counts == {}


@pytest.mark.parametrize("ms", [1, 2, 37, 999, 60_000, 7 * 24 * 3600 * 1000])
def test_a_bucket_is_near_the_time_that_it_stands_for(ms: int) -> None:
    assert middle_ms(bucket(ms)) == pytest.approx(ms, rel=0.1)
