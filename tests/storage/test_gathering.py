"""Calls of a busy sender wait a little for each other; those of an idle one leave at once."""

from hypothesis import given
from hypothesis import strategies as st

from worker.storage.gathering import BUSY, GATHER_S, RUN, WINDOW_S, Gathering

AT = 1000.0


def after(rate: float, seconds: float) -> Gathering:
    """A sender that has made single calls at this rate, a second, for so long."""
    gathering = Gathering()
    for number in range(int(seconds * rate)):
        gathering.sent(1, AT + number / rate)
    return gathering


@given(st.floats(1.0, BUSY / WINDOW_S * 0.9), st.floats(0.0, 1.0))
def test_few_calls_wait_for_nobody(rate: float, seconds: float) -> None:
    assert after(rate, seconds).pause_s(1, AT + seconds) == 0


@given(st.floats(BUSY / WINDOW_S * 1.1, 20_000.0), st.floats(2.5 * WINDOW_S, 1.0))
def test_many_calls_wait_for_each_other(rate: float, seconds: float) -> None:
    assert after(rate, seconds).pause_s(1, AT + seconds) == GATHER_S


def test_calls_that_fill_a_run_wait_for_no_more() -> None:
    busy = after(20_000.0, 1.0)
    assert busy.pause_s(RUN - 1, AT + 1.0) == GATHER_S
    assert busy.pause_s(RUN, AT + 1.0) == 0


@given(st.floats(1.0, 20_000.0), st.floats(2.0 * WINDOW_S, 3600.0))
def test_the_first_call_after_a_pause_waits_for_nobody(rate: float, idle_s: float) -> None:
    assert after(rate, 0.5).pause_s(1, AT + 0.5 + idle_s) == 0


def test_the_calls_of_one_request_alone_are_not_many() -> None:
    gathering = Gathering()
    for number in range(20):
        gathering.sent(1, AT + number * 0.001)
        assert gathering.pause_s(1, AT + number * 0.001) == 0
