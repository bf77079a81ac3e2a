"""A room with many who wait asks for a few more than it is likely to be granted, and for all of them now and then."""

from collections import Counter
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from worker.admission.asking import ALL_S, BULK, FEWEST, Asking
from worker.admission.grants import Answer, Ask, Grant, Limits, Word

AT = 1000.0
MODELS = st.lists(st.sampled_from(["", "a", "b", "c"]), max_size=200)


def line(models: Sequence[str]) -> list[Ask]:
    return [
        Ask(token=f"{at}", tokens=1, tenant="t", body="b", call_kind="k", enqueued_at_ms=0, ends_ms=1, model=model)
        for at, model in enumerate(models)
    ]


def told(*words: Word, reason: str = "requests") -> Grant:
    return Grant(
        answers=tuple(Answer(word) for word in words),
        wait_ms=50,
        reason=reason,
        code="",
        confirmed_at_ms=0,
        probe=False,
        now_ms=0,
        per_second=1.0,
        limits=Limits(),
    )


def steady(granted: int) -> Asking:
    """A room that has just asked for all, and was granted so many."""
    asking = Asking()
    asking.chosen([], 1, AT)
    went: list[Word] = ["go"] * granted
    asking.learn(told(*went, "wait"))
    return asking


@given(MODELS, st.integers(1, 100), st.integers(0, 40))
def test_those_asked_for_are_the_first_of_each_model(models: Sequence[str], places: int, granted: int) -> None:
    asked = [models[at] for at in steady(granted).chosen(line(models), places, AT)]

    assert len(asked) <= min(places, BULK)
    for model, number in Counter(asked).items():
        assert number <= min(max(FEWEST, 2 * granted), models.count(model))
    if len(models) <= places and len(models) <= FEWEST:
        assert asked == list(models)


@given(MODELS, st.integers(1, 100))
def test_a_round_ends_only_where_nobody_more_may_be_asked_for(models: Sequence[str], places: int) -> None:
    asked = steady(0).chosen(line(models), places, AT)

    left = [at for at in range(len(models)) if at not in asked and at < max(asked, default=-1)]
    assert all(sum(models[before] == models[at] for before in asked if before < at) == FEWEST for at in left)


@given(st.integers(0, 10))
def test_all_are_asked_for_once_a_second(granted: int) -> None:
    asking, waiting = steady(granted), line([""] * 60)

    assert len(asking.chosen(waiting, 100, AT + ALL_S * 0.9)) < 60
    assert len(asking.chosen(waiting, 100, AT + ALL_S)) == 60
    asking.learn(told("wait"))
    assert len(asking.chosen(waiting, 100, AT + ALL_S * 1.5)) == FEWEST


@given(st.sampled_from([("late", "requests"), ("later", "requests"), ("wait", "breaker_open"), ("go", "")]))
def test_all_are_asked_for_next_where_the_line_moves_or_the_upstream_is_out_of_order(seen: tuple[Word, str]) -> None:
    word, reason = seen
    asking = steady(0)
    asking.learn(told(word, "wait", reason=reason))

    assert len(asking.chosen(line([""] * 60), 100, AT)) == 60
