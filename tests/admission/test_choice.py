"""The choice of a route: the script and its twin agree on any ways, and both keep what is promised."""

import json
from collections import Counter
from importlib.resources import files
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.controller.routes import Wait, Way, choose
from support.examples import examples

EXAMPLES: Final = examples(100)
SCRIPT: Final = (
    files("worker").joinpath("admission/lua/choice.lua").read_text()
    + """
local asked = cjson.decode(ARGV[1])
local way, wait_ms, reason = choose(asked.ways, asked.waited_ms, asked.draw)
return way and { way.name } or { '', tostring(wait_ms), reason }
"""
)
WAITS: Final = st.sampled_from([0, 0, 0, 1, 40, 900, 60_000])
WAYS: Final = st.lists(
    st.builds(
        Way,
        name=st.uuids().map(str),
        order=st.integers(1, 3),
        spill_ms=st.sampled_from([0, 0, 200, 5_000]),
        closed=st.booleans(),
        wait_ms=WAITS,
        reason=st.sampled_from(["requests", "tokens", "breaker_open"]),
        headroom=st.sampled_from([0.001, 1.0, 4.5, 20.0]),
        rate=st.sampled_from([0.5, 2.0, 10.0]),
        luck=st.floats(0, 0.999),
    ),
    min_size=1,
    max_size=5,
).map(lambda ways: sorted(ways, key=lambda way: way.order))
WAITED: Final = st.sampled_from([0, 150, 4_999, 5_000, 70_000])
DRAWS: Final = st.none() | st.floats(0, 0.999)


def asked_of(ways: list[Way], waited_ms: float, draw: float | None) -> str:
    rows = [{field: getattr(way, field) for field in way.__slots__} for way in ways]
    for row in rows:
        row["closed"] = row["closed"] or None
    rows = [{name: value for name, value in row.items() if value is not None} for row in rows]
    return json.dumps({"ways": rows, "waited_ms": waited_ms} | ({} if draw is None else {"draw": draw}))


def test_the_script_and_its_twin_choose_alike(valkey: Any) -> None:
    @settings(max_examples=EXAMPLES, deadline=None)
    @given(WAYS, WAITED, DRAWS)
    def alike(ways: list[Way], waited_ms: float, draw: float | None) -> None:
        name, *wait = valkey.eval(SCRIPT, 0, asked_of(ways, waited_ms, draw))
        chosen = choose(ways, waited_ms, draw)
        if isinstance(chosen, Way):
            assert name.decode() == chosen.name
        else:
            assert name == b""
            assert (float(wait[0]), wait[1].decode()) == (chosen.ms, chosen.reason)

    alike()


@given(WAYS, WAITED, DRAWS)
def test_nobody_goes_where_there_is_no_room_nor_past_a_lower_order_that_has_some(
    ways: list[Way], waited_ms: float, draw: float | None
) -> None:
    chosen = choose(ways, waited_ms, draw)
    room = [way for way in ways if not way.closed and way.wait_ms <= 0]
    if isinstance(chosen, Way):
        assert chosen in room
        assert all(way.order >= chosen.order for way in room if way.spill_ms <= waited_ms)


@given(WAYS, WAITED, DRAWS)
def test_nobody_waits_for_room_that_there_is(ways: list[Way], waited_ms: float, draw: float | None) -> None:
    """But for the budget of a lower order, and for that no longer than `spill_after`."""
    chosen = choose(ways, waited_ms, draw)
    if isinstance(chosen, Wait):
        for way in ways:
            if not way.closed and way.wait_ms <= 0:
                assert any(other.order < way.order and not other.closed for other in ways)
                assert waited_ms + chosen.ms <= way.spill_ms


@given(WAYS, WAITED, DRAWS)
def test_nobody_waits_for_a_route_that_is_out_of_order(ways: list[Way], waited_ms: float, draw: float | None) -> None:
    """It might as well not be there, if any other route is in order."""
    fit = [way for way in ways if not way.closed]
    if fit:
        assert choose(ways, waited_ms, draw) == choose(fit, waited_ms, draw)


def test_equal_orders_share_in_proportion_to_their_headroom() -> None:
    ways = [Way("a", 1, headroom=20), Way("b", 1, headroom=10), Way("c", 1, headroom=4)]

    chosen = Counter(choose(ways, 0, number / 3_400) for number in range(3_400))

    assert [chosen[way] for way in ways] == [pytest.approx(calls, abs=1) for calls in (2_000, 1_000, 400)]


def test_a_request_that_keeps_to_a_route_leaves_it_only_without_room() -> None:
    ways = [Way("a", 1, luck=0.3), Way("b", 1, luck=0.9), Way("c", 1, luck=0.5)]

    assert choose(ways, 0, None) is ways[1]
    assert choose([ways[0], Way("b", 1, wait_ms=10, luck=0.9), ways[2]], 0, None) is ways[2]
