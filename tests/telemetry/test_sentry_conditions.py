"""Conditions that begin and end: told once, and so is the end of those that one process sees."""

import pytest
from support.sentry_parts import FACTS, World

from api_contracts import ErrorCode
from worker.failures.classes import FAILURES, State


@pytest.mark.parametrize(("away_s", "events"), [(15, 0), (59, 0), (75, 1), (300, 1)])
def test_redis_may_be_away_for_a_minute(world: World, away_s: int, events: int) -> None:
    """A failover mends itself; a real outage is one event, and its end is none."""
    world.incidents.redis_lost()
    world.pass_time(away_s)
    world.incidents.redis_recovered()
    world.pass_time(120)

    assert [event["tags"]["failure_class"] for event in world.events()] == ["redis_lost"] * events


def test_redis_lost_again_is_a_new_outage(world: World) -> None:
    """And may be away for a minute again."""
    for _ in range(2):
        world.incidents.redis_lost()
        world.pass_time(70)
        world.incidents.redis_recovered()
        world.pass_time(200)

    assert len(world.events()) == 2


def test_a_condition_is_told_once_and_so_is_its_end(world: World) -> None:
    """The end is an issue of its own: on the old one it would look like a relapse."""
    for _ in range(3):
        world.incidents.began(ErrorCode.AUTHENTICATION_FAILED, FACTS)
    world.pass_time(125)
    for _ in range(2):
        world.incidents.ended(ErrorCode.AUTHENTICATION_FAILED)

    began, ended = world.events()
    assert (began["level"], began["tags"]["page"]) == ("fatal", "true")
    assert began["contexts"]["impact"]["failures_since_last_event"] == 0
    assert (ended["level"], ended["tags"]["page"]) == ("info", "false")
    assert ended["fingerprint"] == [*began["fingerprint"], "ended"]
    assert ended["contexts"]["impact"] == {"lasted_s": 125}


def test_requests_that_fail_of_a_condition_join_its_issue(world: World) -> None:
    """A dead key is one issue, before and after patience runs out."""
    world.incidents.began(ErrorCode.AUTHENTICATION_FAILED, FACTS)
    for _ in range(30):
        world.incidents.failed(ErrorCode.AUTHENTICATION_FAILED, FACTS)
    world.incidents.flush()

    began, tail = world.events()
    assert began["fingerprint"] == tail["fingerprint"]
    assert tail["contexts"]["impact"]["failures_since_last_event"] == 30


def test_only_ends_that_one_process_sees_are_told() -> None:
    """All processes see that Redis is back: forty events would tell nothing more."""
    assert not FAILURES[State.REDIS_LOST].end_is_told
    assert not FAILURES[State.RESULTS_HIGH_WATER].end_is_told
