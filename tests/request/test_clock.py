"""Server time between two looks at Redis goes on by the monotonic clock."""

import time

from worker.request.clock import ServerClock


def test_a_newer_reading_makes_up_for_the_time_that_the_older_reply_took() -> None:
    late = ServerClock(100_000)

    assert 100_300 <= late.corrected(100_300).now_ms < 105_000


def test_a_reading_that_came_late_itself_sets_nothing_back() -> None:
    clock = ServerClock(100_000, time.monotonic() - 1)

    assert clock.corrected(100_500) is clock


def test_a_jump_of_the_servers_clock_is_not_felt() -> None:
    clock = ServerClock(100_000)

    assert clock.corrected(3_700_000) is clock
