"""Results go when every group has acknowledged them or when they are old; a group that lags is reported."""

import pytest
from support.cleaner_parts import DAY_MS, NODE, House, keeper
from support.heard import Heard
from support.ledger_parts import RESULTS

from worker.queue.claims import Backlog
from worker.queue.retention import PAGES, RETAIN_S


@pytest.mark.parametrize(("age_days", "left"), [(8, 0), (6, 3 * NODE)])
async def test_without_groups_age_decides(house: House, age_days: int, left: int) -> None:
    house.publish(3 * NODE, age_ms=age_days * DAY_MS)

    await house.retain()

    assert house.redis.xlen(RESULTS) == left


async def test_an_empty_stream_that_nobody_reads_is_forgotten(house: House) -> None:
    house.publish(3, "responses:results:once", age_ms=8 * DAY_MS)

    await house.retain()
    await house.retain()

    assert house.redis.keys("responses:results*") == []
    assert not house.redis.exists("responses:streams")


async def test_what_every_group_has_acknowledged_goes(house: House) -> None:
    house.publish(5 * NODE)
    house.read("fast", 5 * NODE)
    house.read("slow", 2 * NODE + 10)

    await house.retain()

    assert 3 * NODE - 10 <= house.redis.xlen(RESULTS) <= 3 * NODE
    house.read("slow", 5 * NODE)
    await house.retain()
    assert house.redis.xlen(RESULTS) <= NODE


@pytest.mark.parametrize("age_days", [0, 30])
async def test_what_a_group_has_read_and_not_acknowledged_stays(house: House, age_days: int) -> None:
    """However old it is: whoever took it may have died with it."""
    house.publish(5 * NODE, age_ms=age_days * DAY_MS)
    house.read("group", NODE + 10)
    house.read("group", 1, acknowledge=False)
    house.read("group", 3 * NODE)

    await house.retain()

    assert house.redis.xpending(RESULTS, "group")["pending"] == 1
    (entry,) = house.redis.xpending_range(RESULTS, "group", "-", "+", 1)
    assert house.redis.xrange(RESULTS, entry["message_id"], entry["message_id"])
    assert 4 * NODE - 10 <= house.redis.xlen(RESULTS) <= 4 * NODE


async def test_a_group_that_has_read_nothing_holds_everything(house: House) -> None:
    ids = house.publish(3 * NODE, age_ms=30 * DAY_MS)
    house.read("fast", 3 * NODE)
    house.redis.xgroup_create(RESULTS, "new", "0")

    await house.retain()

    assert house.redis.xrange(RESULTS, count=1)[0][0].decode() == ids[0]


async def test_ids_are_compared_as_numbers(house: House) -> None:
    """As text, entry 9 of a millisecond would come after entry 10."""
    house.publish(3 * NODE)
    house.read("all", 3 * NODE)
    house.read("nine", 9)

    await house.retain()

    assert house.redis.xlen(RESULTS) == 3 * NODE


async def test_without_groups_the_oldest_go_and_work_goes_on(house: House) -> None:
    """Callers that wait by id read no stream: nobody is behind."""
    house.publish(9 * NODE)

    await house.retain()

    assert house.redis.xlen(RESULTS) == 5 * NODE
    assert house.keeping.backlog is None
    assert house.heard.backlogs == []


async def test_a_lagging_group_is_reported_once_and_once_when_it_has_caught_up(house: House) -> None:
    """Between the two no work is taken."""
    house.publish(6 * NODE)
    house.publish(NODE, "responses:results:small")
    house.read("fast", 6 * NODE)
    house.redis.xgroup_create(RESULTS, "slow", "0")

    for _ in range(3):
        await house.retain()
        house.redis.xadd(RESULTS, {"result": "x"})
    assert house.heard.backlogs == [Backlog(RESULTS, 6 * NODE, "slow")]
    assert house.keeping.backlog == Backlog(RESULTS, 6 * NODE + 2, "slow")

    house.read("slow", 6 * NODE)
    for _ in range(2):
        await house.retain()
    assert house.heard.backlogs[1:] == [None]
    assert house.keeping.backlog is None


async def test_many_streams_are_looked_after_a_few_at_a_time(house: House) -> None:
    """Callers may use a stream each: a script over all of them would stop everybody else meanwhile."""
    for number in range(500):
        house.publish(1, f"responses:results:{number}", age_ms=8 * DAY_MS)
    house.publish(6 * NODE)
    house.redis.xgroup_create(RESULTS, "slow", "0")

    calls = house.redis.info("commandstats").get("cmdstat_evalsha", {"calls": 0})["calls"]
    await house.retain()
    calls = house.redis.info("commandstats")["cmdstat_evalsha"]["calls"] - calls

    assert house.redis.keys("responses:results*") == [RESULTS.encode()]
    assert house.keeping.backlog == Backlog(RESULTS, 6 * NODE, "slow")
    assert calls >= 4


async def test_a_stream_that_is_something_else_now_is_left_alone(house: House) -> None:
    house.publish(6 * NODE)
    house.redis.xgroup_create(RESULTS, "slow", "0")
    house.redis.sadd("responses:streams", "responses:results:mine")
    house.redis.set("responses:results:mine", "mine")

    await house.retain()

    assert house.redis.get("responses:results:mine") == b"mine"
    assert house.redis.smembers("responses:streams") == {RESULTS.encode()}
    assert house.keeping.backlog is not None


async def test_one_process_makes_the_pass_and_all_know_the_backlog(house: House) -> None:
    house.publish(6 * NODE)
    house.redis.xgroup_create(RESULTS, "slow", "0")
    other = keeper(house.desk, Heard())
    await house.keeping.retain()
    house.redis.xadd(RESULTS, {"result": "x"})

    calls = house.redis.info("commandstats")["cmdstat_xtrim"]["calls"]
    await other.retain()

    assert house.redis.info("commandstats")["cmdstat_xtrim"]["calls"] == calls
    assert other.backlog == house.keeping.backlog == Backlog(RESULTS, 6 * NODE, "slow")
    house.desk.advance(round(RETAIN_S * 1000))
    await other.retain()
    assert other.backlog == Backlog(RESULTS, 6 * NODE + 1, "slow")


async def test_a_pass_looks_at_a_bounded_number_of_streams_and_the_next_one_goes_on(house: House) -> None:
    """The main stream and one that is too long are looked at every time."""
    many = 3 * PAGES * NODE
    for number in range(many):
        house.redis.sadd("responses:streams", f"responses:results:{number}")
    house.publish(6 * NODE)
    house.redis.xgroup_create(RESULTS, "slow", "0")

    await house.retain()
    left = house.redis.scard("responses:streams")
    assert many / 2 < left < many
    assert house.keeping.backlog == Backlog(RESULTS, 6 * NODE, "slow")
    for _ in range(4):
        await house.retain()

    assert house.redis.smembers("responses:streams") == {RESULTS.encode()}
