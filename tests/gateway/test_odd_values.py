"""Any value in any place of an answer: reading it never raises, and what is published can be read."""

import copy
from collections.abc import Iterator
from typing import Any, Final, cast

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.distortions import message, response

from api_contracts.responses import ResponseObject
from worker.failures.failure import Failure, from_http
from worker.gateway.answers import Answer, read_document
from worker.gateway.sse import Event
from worker.gateway.stream import StreamReader

Path = tuple[str | int, ...]

_GOOD: Final = response("x")
_BEGUN: Final[dict[str, Any]] = {
    "type": "response.created",
    "response": _GOOD | {"status": "in_progress", "output": []},
}
_DONE: Final = {"type": "response.output_item.done", "output_index": 0, "item": message("x")}
_DELTA: Final = {"type": "response.output_text.delta", "output_index": 0, "delta": "x"}
STREAMS: Final[list[list[Any]]] = [
    [_BEGUN, _DELTA, _DONE, {"type": "response.completed", "response": _GOOD}],
    [_BEGUN, _DELTA, _DONE, {"type": "response.completed", "response": _GOOD | {"output": []}}],
    [_BEGUN, _DONE],
    [_BEGUN, {"status": "completed", "output": [], "error": None}],
]
_ERROR: Final = {"message": "m", "code": "c", "type": "t", "param": None, "extensions": {"code": "c"}}
DOCUMENTS: Final[list[Any]] = [
    _GOOD,
    _GOOD | {"output": None, "output_text": "x"},
    {"type": "response.completed", "response": _GOOD},
    {"result": _GOOD, "success": True},
    [_GOOD],
    {"error": _ERROR, "errors": [_ERROR], "detail": [_ERROR], "status": "failed", "usage": {"input_tokens": 1}},
    {"object": "error", **_ERROR},
]
_SCALARS: Final = st.sampled_from(
    [None, True, False, 0, 1, -1, 1.5, 1e308, "", "x", "completed", "error", "response.completed"]
)
ODD: Final = st.recursive(
    _SCALARS,
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["a", "type", "status", "content", "output", "text", "code"]), inner, max_size=2
        )
    ),
    max_leaves=4,
)


def places(value: Any, here: Path = ()) -> Iterator[Path]:
    """The way to every value within `value`, itself included."""
    yield here
    if isinstance(value, dict):
        for name, below in cast("dict[str, Any]", value).items():
            yield from places(below, (*here, name))
    elif isinstance(value, list):
        for index, below in enumerate(cast("list[Any]", value)):
            yield from places(below, (*here, index))


def replaced(value: Any, place: Path, new: Any) -> Any:
    if not place:
        return new
    changed = parent = copy.deepcopy(value)
    for key in place[:-1]:
        parent = parent[key]
    parent[place[-1]] = new
    return changed


def assert_sound(outcome: Answer | Failure | None) -> None:
    if isinstance(outcome, Answer):
        ResponseObject.model_validate_json(outcome.raw)
        orjson.loads(outcome.raw)


@pytest.mark.parametrize("events", STREAMS)
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_in_a_stream(events: list[Any], data: st.DataObject) -> None:
    place = data.draw(st.sampled_from(list(places(events))[1:]))
    reader = StreamReader({}, 200, 1_000_000)

    for event in [*replaced(events, place, data.draw(ODD)), "[DONE]"]:
        sent = event.encode() if isinstance(event, str) else orjson.dumps(event)
        if (outcome := reader.take(Event("", sent))) is not None:
            assert_sound(outcome)
            break


@pytest.mark.parametrize("document", DOCUMENTS)
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_in_a_document(document: Any, data: st.DataObject) -> None:
    place = data.draw(st.sampled_from(list(places(document))))
    body = orjson.dumps(replaced(document, place, data.draw(ODD)))

    assert_sound(read_document(body, {}, 200))
    from_http(data.draw(st.sampled_from([400, 404, 429, 500, 503])), {}, body)
