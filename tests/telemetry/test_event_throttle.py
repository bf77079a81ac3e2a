"""Few events, exact counts: the throttle before Sentry."""

import random
from collections import Counter

import pytest

from worker.telemetry.event_throttle import EventThrottle

MARK = ("responses-worker", "upstream_error", "default")


def note(
    throttle: EventThrottle[str],
    at_s: float,
    tenant: str = "acme",
    mark: tuple[str, ...] = MARK,
    lane: str = "interactive",
) -> int | None:
    """The number of failures that the event due now stands for, if one is due."""
    impact = throttle.note(mark, "sample", at_s, tenant=tenant, lane=lane)
    return impact.failures if impact else None


def test_the_first_of_a_series_is_told_at_once_and_the_rest_after_a_minute() -> None:
    """2,000 failures within a second make two events, and the counts add up."""
    throttle = EventThrottle[str]()

    told = [note(throttle, n / 2000, tenant=f"t{n % 40}") for n in range(2000)]
    early = throttle.due(59.0)
    ((_, impact),) = throttle.due(60.0)

    assert [count for count in told if count] == [1]
    assert early == []
    assert impact.failures == 1999
    assert impact.total == 2000
    assert len(impact.tenants) == 40
    assert impact.window_s == pytest.approx(60)


def test_an_outage_is_told_less_often_the_longer_it_lasts() -> None:
    """After one minute, then 2, 4, 8 and every 15 minutes."""
    throttle = EventThrottle[str]()
    told: list[int] = []

    for second in range(3600):
        if note(throttle, second):
            told.append(second)
        told += [second for _ in throttle.due(second)]

    assert told == [0, 60, 180, 420, 900, 1800, 2700]


def test_a_minute_of_silence_ends_a_series() -> None:
    """Its rest is told then, and the next failure is a first one again."""
    throttle = EventThrottle[str]()
    note(throttle, 0)
    note(throttle, 5)

    ((_, impact),) = throttle.due(65.0)

    assert impact.failures == 1
    assert note(throttle, 66) == 1


def test_silence_in_a_long_window_ends_the_series_early() -> None:
    """A repairer should not wait minutes for the last count."""
    throttle = EventThrottle[str]()
    for second in range(70):
        note(throttle, second)
        throttle.due(second)

    assert throttle.due(128.0) == []
    ((_, impact),) = throttle.due(129.0)
    assert impact.total == 70
    assert note(throttle, 130) == 1


def test_what_is_held_at_the_end_is_told() -> None:
    """Nothing is lost by leaving."""
    throttle = EventThrottle[str]()
    for n in range(5):
        note(throttle, n)

    assert [impact.failures for _, impact in throttle.flush(5.0)] == [4]
    assert throttle.flush(5.0) == []


@pytest.mark.parametrize("seed", range(20))
def test_never_more_than_two_events_a_minute_and_nothing_lost(seed: int) -> None:
    """The bounds hold for every fingerprint, in every minute, and in all, whatever the failures' timing."""
    rng = random.Random(seed)
    throttle = EventThrottle[str]()
    told: list[float] = []
    failures = counted = 0
    now = 0.0
    for _ in range(3000):
        now += rng.choice((0.001, 0.5, 20, 61, 100))
        failures += 1
        if count := note(throttle, now):
            told.append(now)
            counted += count
        for _, impact in throttle.due(now):
            told.append(now)
            counted += impact.failures
    counted += sum(impact.failures for _, impact in throttle.flush(now))

    assert counted == failures
    assert all(third - first >= 59.999 for first, third in zip(told, told[2:], strict=False))


def test_more_fingerprints_than_anybody_could_read_are_counted_together() -> None:
    """A defect that makes endless fingerprints costs neither memory nor a flood of events."""
    throttle = EventThrottle[str]()

    told = [note(throttle, 0.0, mark=("bug", str(n))) for n in range(1000)]
    held = throttle.flush(1.0)

    assert sum(filter(None, told)) == 257
    assert sum(impact.failures for _, impact in held) == 743


def test_a_condition_is_no_failure() -> None:
    """A dead key is told before any request failed of it."""
    throttle = EventThrottle[str]()

    impact = throttle.begin(MARK, "sample", 0.0)

    assert impact is not None
    assert impact.failures == 0
    assert throttle.begin(MARK, "sample", 1.0) is None
    assert note(throttle, 2.0) is None
    assert [held.failures for _, held in throttle.due(62.0)] == [1]


def test_lanes_and_tenants_are_those_since_the_last_event() -> None:
    """The count is of those affected now, not of all that ever were."""
    throttle = EventThrottle[str]()
    note(throttle, 0, tenant="first")
    tenants = Counter({"a": 3, "b": 1})
    for tenant in tenants.elements():
        note(throttle, 1, tenant=tenant, lane="batch")

    ((_, impact),) = throttle.due(60.0)

    assert impact.tenants == ("a", "b")
    assert impact.lanes == ("batch",)
