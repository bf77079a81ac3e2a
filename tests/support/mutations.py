"""Bodies that are nearly valid: what belongs somewhere in a body, at places where it may not belong."""

import json
from collections.abc import Sequence
from copy import deepcopy
from typing import Any, Final, cast

from hypothesis import strategies as st

Json = dict[str, Any]
Place = tuple[str | int, ...]

NUMBERS: Final = (0, 1, -1, 2, 0.0, 1.0, 0.5, 1.5, -0.5, 1.0000001, 1e300, 10**400)
WORDS: Final = ("", "1", "true", "user", "text", "none", "low", "LOW", "auto", "xhigh", "gpt-5.4-mini")
MESSAGES: Final = ({"role": "user"}, {"role": "user", "content": None}, {"role": "user", "content": ""})
ALMOST: Final[st.SearchStrategy[Any]] = st.one_of(
    st.sampled_from([None, True, False]),
    st.sampled_from(NUMBERS),
    st.sampled_from(WORDS),
    st.sampled_from([*MESSAGES, {}]).map(deepcopy),
    st.lists(st.sampled_from([*MESSAGES, {}, [], 1, None]), max_size=2).map(deepcopy),
)
"""Values that belong somewhere in a body, or nearly do; fresh ones, since mutations mutate them."""


def entries(value: object) -> list[tuple[str | int, object]]:
    if isinstance(value, dict):
        return list(cast("Json", value).items())
    return list(enumerate(cast("list[object]", value))) if isinstance(value, list) else []


def places(value: object, here: Place = ()) -> list[Place]:
    """Every place below `value`."""
    return [place for key, below in entries(value) for place in ((*here, key), *places(below, (*here, key)))]


@st.composite
def mutated(draw: st.DrawFn, valid: st.SearchStrategy[Json], neighbours: Sequence[str]) -> Json:
    """A valid body with one or two places replaced, removed, or given a neighbour."""
    body: Json = json.loads(json.dumps(draw(valid)))
    for _ in range(draw(st.integers(1, 2))):
        mutate(draw, body, draw(st.sampled_from(places(body) or [("model",)])), neighbours)
    return body


def mutate(draw: st.DrawFn, body: Json, place: Place, neighbours: Sequence[str]) -> None:
    spot: Any = body
    for parent in place[:-1]:
        spot = spot[parent]
    match draw(st.sampled_from(["replace", "replace", "remove", "neighbour"])):
        case "replace":
            spot[place[-1]] = draw(ALMOST)
        case "remove" if entries(spot):
            del spot[place[-1]]
        case _ if isinstance(spot, dict):
            spot[draw(st.sampled_from(neighbours))] = draw(ALMOST)
        case _:
            spot.append(draw(ALMOST))
