"""Calls of a busy sender wait a little for each other; those of an idle one leave at once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.storage.gathering import LONGEST_S, RISE, RUN, SHARE, WINDOW_S, Gathering, Pace

AT = 1000.0
TIMES = st.floats(0.01, 600.0)


def after(rate: float, seconds: float, pace: Pace) -> Gathering:
    """A sender that has made single calls at this rate, a second, for so long."""
    gathering = Gathering(pace)
    for number in range(int(seconds * rate)):
        gathering.sent(1, AT + number / rate)
    return gathering


def paced(*answers_s: float) -> Pace:
    pace = Pace()
    for took_s in answers_s:
        pace.answered(took_s)
    return pace


@given(TIMES, st.floats(2.5 * WINDOW_S, 2.0))
def test_calls_that_come_slower_than_a_pause_wait_for_nobody(short_s: float, seconds: float) -> None:
    pace = Pace(short_s)
    assert after(0.8 / pace.pause_s, seconds, pace).pause_s(1, AT + seconds) == 0


@given(TIMES.filter(lambda short_s: short_s > 0.1), st.floats(2.5 * WINDOW_S, 2.0))
def test_calls_that_come_faster_wait_for_each_other(short_s: float, seconds: float) -> None:
    pace = Pace(short_s)
    pause = after(1.2 / pace.pause_s + 3 / WINDOW_S, seconds, pace).pause_s(1, AT + seconds)
    assert pause == min(short_s * SHARE, LONGEST_S)


def test_calls_that_fill_a_run_wait_for_no_more() -> None:
    busy = after(20_000.0, 2.0, Pace(1.0))
    assert busy.pause_s(RUN - 1, AT + 2.0) == SHARE
    assert busy.pause_s(RUN, AT + 2.0) == 0


@given(st.floats(1.0, 20_000.0), TIMES, st.floats(2.0 * WINDOW_S, 3600.0))
def test_the_first_call_after_a_pause_waits_for_nobody(rate: float, short_s: float, idle_s: float) -> None:
    assert after(rate, 1.0, Pace(short_s)).pause_s(1, AT + 1.0 + idle_s) == 0


@given(TIMES)
def test_the_calls_of_one_request_alone_are_not_many(short_s: float) -> None:
    gathering = Gathering(Pace(short_s))
    for number in range(20):
        gathering.sent(1, AT + number * 0.001)
        assert gathering.pause_s(1, AT + number * 0.001) == 0


@given(st.floats(1.0, 20_000.0), st.floats(1.0, 2.0))
def test_before_the_first_answer_nobody_waits(rate: float, seconds: float) -> None:
    assert after(rate, seconds, Pace()).pause_s(1, AT + seconds) == 0


@given(st.lists(TIMES, min_size=1, max_size=200), TIMES)
def test_a_short_answer_counts_at_once(answers_s: list[float], short_s: float) -> None:
    pace = paced(*answers_s, short_s)
    assert pace.short_s <= short_s


def test_short_answers_are_felt_among_long_ones() -> None:
    """One in ten takes 0.2 seconds, and all others eight."""
    pace = paced(*([8.0] * 9 + [0.2]) * 100)
    assert 0.2 <= pace.short_s <= 0.2 + 10 * 8.0 * RISE


def test_equal_answers_are_found_within_some_hundreds() -> None:
    assert paced(*[8.0] * 500).short_s == pytest.approx(8.0, rel=0.03)
