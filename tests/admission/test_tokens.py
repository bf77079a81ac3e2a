"""The estimate of a call's cost follows the costs that calls did have."""

import pytest

from api_contracts.responses import Usage
from worker.admission.tokens import TokenEstimator


def taught(times: int, size: int, limit: int | None, usage: Usage) -> TokenEstimator:
    estimator = TokenEstimator()
    for _ in range(times):
        estimator.learn(size, limit, usage)
    return estimator


@pytest.mark.parametrize(("size", "limit", "expected"), [(400, 100, 200), (400, None, 612), (0, 1, 1)])
def test_at_first_tokens_are_a_quarter_of_the_body_and_the_longest_answer(
    size: int, limit: int | None, expected: int
) -> None:
    assert TokenEstimator().estimate(size, limit) == expected


def test_a_denser_language_costs_more_for_the_same_bytes() -> None:
    estimator = taught(300, 2_000, 1, Usage(input_tokens=1_000))

    assert estimator.estimate(2_000, 1) == pytest.approx(1_001, rel=0.02)


def test_an_image_does_not_make_text_look_free() -> None:
    estimator = taught(300, 1_000_000, 1, Usage(input_tokens=1_000))

    assert estimator.estimate(1_600, 1) == 101


def test_answers_to_requests_without_a_limit_teach_how_long_the_next_will_be() -> None:
    estimator = taught(300, 0, None, Usage(output_tokens=90))

    assert estimator.estimate(0, None) == pytest.approx(90, abs=2)


def test_answers_cut_by_a_limit_teach_nothing_of_those_without() -> None:
    estimator = taught(300, 0, 5, Usage(output_tokens=5))

    assert estimator.estimate(0, None) == 512


def test_an_answer_without_counts_teaches_nothing() -> None:
    assert taught(300, 4_000, None, Usage()) == TokenEstimator()
