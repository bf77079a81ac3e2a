"""When a failed request is tried again: a table for each bound, and properties over the whole space."""

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api_contracts.errors import ErrorCode, UpstreamError
from worker.failures.failure import Failure, TransportKind, from_transport
from worker.request.retries import CALL_TIME_S, RETRY_AFTER_SPREAD, GiveUp, Retry, RetryPolicy

POLICY = RetryPolicy(base_s=2.0, cap_s=60.0)
BROKEN = Failure.of(ErrorCode.UPSTREAM_ERROR)
LONG_S = 3600.0


class Extreme(random.Random):
    """Draws the lower or the upper end of every range, so that a window shows both its ends."""

    def __init__(self, draw: float) -> None:
        super().__init__()
        self._draw = draw

    def random(self) -> float:
        return self._draw


def decide(
    failure: Failure = BROKEN,
    *,
    failures: int = 1,
    costly: int | None = None,
    max_attempts: int = 5,
    time_left_s: float = LONG_S,
    draw: float = 0.5,
) -> Retry | GiveUp:
    """Unless said otherwise, all failures were alike."""
    return POLICY.after_failure(
        failure,
        failures=failures,
        costly=failures if costly is None else costly,
        max_attempts=max_attempts,
        time_left_s=time_left_s,
        rng=Extreme(draw),
    )


def window(failure: Failure = BROKEN, *, failures: int = 1, time_left_s: float = LONG_S) -> tuple[float, float]:
    """The earliest and the latest delay."""
    ends = [
        decide(failure, failures=failures, max_attempts=99_999, time_left_s=time_left_s, draw=draw)
        for draw in (0.0, 1.0)
    ]
    opens, closes = ends
    assert isinstance(opens, Retry)
    assert isinstance(closes, Retry)
    return opens.delay_s, closes.delay_s


def asking(wait_s: float | None) -> Failure:
    return replace(BROKEN, retry_after_s=wait_s)


@pytest.mark.parametrize(
    ("failures", "closes_s"), [(1, 2), (2, 4), (3, 8), (4, 16), (5, 32), (6, 60), (7, 60), (10_000, 60)]
)
def test_the_window_doubles_with_every_failure_up_to_the_cap(failures: int, closes_s: float) -> None:
    assert window(failures=failures) == (0, closes_s)


@pytest.mark.parametrize(
    ("wait_s", "failures", "expected"),
    [
        pytest.param(30.0, 1, (30.0, 33.0), id="longer than backoff: spread upward"),
        pytest.param(3.0, 4, (3.0, 16.0), id="shorter than backoff: only the floor"),
        pytest.param(600.0, 9, (600.0, 660.0), id="longer than the cap: obeyed"),
        pytest.param(0.5, 1, (0.5, 2.0), id="below a second: obeyed"),
        pytest.param(0.0, 1, (0.0, 2.0), id="zero: no floor"),
        pytest.param(-5.0, 1, (0.0, 2.0), id="negative: ignored"),
        pytest.param(float("nan"), 1, (0.0, 2.0), id="not a number: ignored"),
        pytest.param(float("inf"), 1, (0.0, 2.0), id="infinite: ignored"),
    ],
)
def test_retry_after_is_a_floor(wait_s: float, failures: int, expected: tuple[float, float]) -> None:
    assert window(asking(wait_s), failures=failures) == pytest.approx(expected)


@pytest.mark.parametrize("asked_s", [901.0, 3600.0, 86_400.0])
def test_a_retry_after_beyond_the_longest_pause_is_tried_by_its_end(asked_s: float) -> None:
    """A proxy that asks for an hour in an incident of a minute must not end a request that had an hour."""
    patient = RetryPolicy(longest_pause_s=900)

    decision = patient.after_failure(
        asking(asked_s), failures=1, costly=0, max_attempts=5, time_left_s=1800, rng=random.Random(1)
    )

    assert isinstance(decision, Retry)
    assert 800 < decision.delay_s <= 900


@pytest.mark.parametrize(
    ("wait_s", "time_left_s", "expected"),
    [
        pytest.param(None, 3.0, (0.0, 2.0), id="just fits: whole"),
        pytest.param(None, 1.5, (0.0, 0.5), id="backoff: shortened"),
        pytest.param(30.0, 32.0, (30.0, 31.0), id="spread: shortened"),
        pytest.param(30.0, 31.0, (30.0, 30.0), id="nothing but the floor"),
    ],
)
def test_the_deadline_shortens_the_window_but_never_the_floor(
    wait_s: float | None, time_left_s: float, expected: tuple[float, float]
) -> None:
    assert window(asking(wait_s), time_left_s=time_left_s) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("wait_s", "time_left_s"),
    [
        pytest.param(None, CALL_TIME_S - 0.001, id="no time for a call"),
        pytest.param(None, -10.0, id="passed"),
        pytest.param(30.0, 30.5, id="Retry-After leaves no time for a call"),
        pytest.param(1e12, LONG_S, id="absurd Retry-After"),
    ],
)
def test_a_retry_that_cannot_meet_the_deadline_gives_up_now(wait_s: float | None, time_left_s: float) -> None:
    failure = replace(asking(wait_s), upstream=UpstreamError(code="server_error"), http_status=500)

    decision = decide(failure, time_left_s=time_left_s)

    assert isinstance(decision, GiveUp)
    assert decision.failure.code is ErrorCode.DEADLINE_EXCEEDED
    assert (decision.failure.upstream, decision.failure.http_status) == (failure.upstream, 500)


@pytest.mark.parametrize(
    ("ceiling", "max_attempts", "failures", "again"),
    [
        pytest.param(None, 5, 4, True, id="one left"),
        pytest.param(None, 5, 5, False, id="last one spent"),
        pytest.param(None, 1, 1, False, id="only one wanted"),
        pytest.param(2, 5, 1, True, id="a costly class allows a second"),
        pytest.param(2, 5, 2, False, id="and no third"),
        pytest.param(3, 2, 2, False, id="the request allows less than the class"),
    ],
)
def test_attempts_end_at_the_lower_of_both_ceilings(
    ceiling: int | None, max_attempts: int, failures: int, *, again: bool
) -> None:
    failure = replace(BROKEN, max_attempts=ceiling)

    decision = decide(failure, failures=failures, max_attempts=max_attempts)

    assert isinstance(decision, Retry) if again else decision == GiveUp(failure)


def test_after_the_last_attempt_the_answer_is_the_last_failure_even_past_the_deadline() -> None:
    assert decide(failures=5, time_left_s=-1.0) == GiveUp(BROKEN)


def test_what_is_to_be_answered_is_never_retried() -> None:
    rejected = Failure.of(ErrorCode.INVALID_REQUEST)

    assert decide(rejected) == GiveUp(rejected)


@given(
    failure=st.builds(
        replace,
        st.sampled_from(TransportKind).map(from_transport),
        retry_after_s=st.none() | st.floats(),
    ),
    failures=st.integers(0, 10**6),
    max_attempts=st.integers(1, 20),
    time_left_s=st.floats(-1e9, 1e9),
    rng=st.randoms(use_true_random=False),
)
def test_whatever_is_asked_a_retry_keeps_all_promises(
    failure: Failure, failures: int, max_attempts: int, time_left_s: float, rng: random.Random
) -> None:
    decision = POLICY.after_failure(
        failure,
        failures=failures,
        costly=failures,
        max_attempts=max_attempts,
        time_left_s=time_left_s,
        rng=rng,
    )

    if isinstance(decision, GiveUp):
        assert decision.failure.code in {failure.code, ErrorCode.DEADLINE_EXCEEDED}
        return
    asked_s = failure.retry_after_s or 0.0
    floor_s = asked_s if 0 < asked_s < float("inf") else 0.0
    assert failures < min(max_attempts, failure.max_attempts or max_attempts)
    assert decision.delay_s <= time_left_s - CALL_TIME_S
    assert floor_s <= decision.delay_s <= max(POLICY.cap_s, floor_s * (1 + RETRY_AFTER_SPREAD))


def test_requests_that_failed_together_do_not_return_together() -> None:
    """A thousand that were told to wait 30 s spread over 3 s, evenly: no second takes half of them."""
    rng = random.Random(7)
    decisions = [
        POLICY.after_failure(asking(30.0), failures=1, costly=0, max_attempts=5, time_left_s=LONG_S, rng=rng)
        for _ in range(1000)
    ]

    delays = [decision.delay_s for decision in decisions if isinstance(decision, Retry)]

    assert len(delays) == 1000
    assert max(sum(start <= delay < start + 1 for delay in delays) for start in (30, 31, 32)) < 500


REFUSED = Failure.of(ErrorCode.AUTHENTICATION_FAILED)
THROTTLED = Failure.of(ErrorCode.RATE_LIMITED)


def refused(
    failure: Failure = THROTTLED, *, own: int = 1, time_left_s: float = LONG_S, draw: float = 0.5
) -> Retry | GiveUp:
    return POLICY.after_refusal(failure, own=own, time_left_s=time_left_s, rng=Extreme(draw))


@pytest.mark.parametrize(
    ("wait_s", "own", "time_left_s", "expected"),
    [
        pytest.param(None, 1, LONG_S, (2, 4), id="at least half"),
        pytest.param(None, 4, LONG_S, (16, 32), id="doubled each time"),
        pytest.param(None, 7, LONG_S, (60, 120), id="up to the cap"),
        pytest.param(5.0, 1, LONG_S, (5, 5.5), id="Retry-After is a floor, and spread"),
        pytest.param(5.0, 4, LONG_S, (16, 32), id="a short Retry-After shortens nothing"),
        pytest.param(None, 3, 12.0, (8, 11), id="the deadline: shortened"),
    ],
)
def test_a_request_that_is_refused_alone_waits_longer_each_time(
    wait_s: float | None, own: int, time_left_s: float, expected: tuple[float, float]
) -> None:
    ends = [
        refused(replace(THROTTLED, retry_after_s=wait_s), own=own, time_left_s=time_left_s, draw=draw)
        for draw in (0.0, 1.0)
    ]

    assert [each.delay_s for each in ends if isinstance(each, Retry)] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("wait_s", "own", "time_left_s"),
    [
        pytest.param(None, 3, 8.5, id="the backoff leaves no time for a call"),
        pytest.param(30.0, 1, 30.5, id="Retry-After leaves no time for a call"),
        pytest.param(None, 1, -3.0, id="passed"),
    ],
)
def test_a_refusal_that_leaves_no_time_is_the_answer(wait_s: float | None, own: int, time_left_s: float) -> None:
    """`deadline_exceeded` would hide the request's own trouble."""
    failure = replace(THROTTLED, retry_after_s=wait_s)

    assert refused(failure, own=own, time_left_s=time_left_s) == GiveUp(failure)


@pytest.mark.parametrize(
    ("failure", "allowed"),
    [(REFUSED, 4), (THROTTLED, 8), (replace(REFUSED, scope="request"), 1), (replace(THROTTLED, scope="model"), 8)],
)
def test_a_request_that_is_refused_alone_is_answered_in_the_end(failure: Failure, allowed: int) -> None:
    decisions = [refused(failure, own=own) for own in range(1, allowed + 1)]

    assert [isinstance(each, Retry) for each in decisions] == [True] * (allowed - 1) + [False]
    assert decisions[-1] == GiveUp(failure)


def test_what_cost_nothing_does_not_count_against_what_did() -> None:
    """Three errors and then a first call without an answer: that one is made once more."""
    billed = Failure.of(ErrorCode.UPSTREAM_TIMEOUT)

    assert isinstance(decide(billed, failures=4, costly=1), Retry)
    assert isinstance(decide(billed, failures=4, costly=2), GiveUp)
    assert isinstance(decide(BROKEN, failures=3, costly=2), Retry)
    assert isinstance(decide(billed, failures=5, costly=1), GiveUp)
