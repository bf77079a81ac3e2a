"""No refusal and no repr repeats a value of a request or of an answer."""

import json
import traceback
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any, Final, cast

import pytest
from pydantic import ValidationError

from api_contracts import (
    ContractViolation,
    GenerationRequest,
    GenerationResult,
    ResponseObject,
    ResponsesRequest,
)

Json = dict[str, Any]
Place = tuple[str | int, ...]

ENVELOPE: Final[Json] = json.loads((Path(__file__).parents[1] / "data" / "envelope.json").read_text())
CANARY: Final = "canary-f3a9"
NUMBER: Final = 73041175931
SONGS: Final[tuple[object, ...]] = (
    CANARY,
    CANARY * 100,
    [CANARY],
    {"nested": CANARY},
    [[{"nested": [CANARY]}]],
    CANARY.encode(),
    NUMBER,
    -NUMBER,
    NUMBER + 0.5,
)
"""The secret in every JSON type, and as bytes; keys are no secrets."""


def places(value: object, here: Place = ()) -> list[Place]:
    """Every place in `value`, itself included."""
    if isinstance(value, dict):
        below = list(cast("Json", value).items())
    else:
        below = list(enumerate(cast("list[object]", value))) if isinstance(value, list) else []
    return [here, *(place for key, entry in below for place in places(entry, (*here, key)))]


def replaced(whole: Json, place: Place, value: object) -> Any:
    if not place:
        return value
    changed = deepcopy(whole)
    spot: Any = changed
    for key in place[:-1]:
        spot = spot[key]
    spot[place[-1]] = value
    return changed


def assert_silent(error: Exception, place: Place = ()) -> None:
    """Neither text, repr, traceback nor cause of the error repeats the secret."""
    told = "".join(traceback.format_exception(error)) + repr(error) + str(error) + repr(error.__context__)
    assert CANARY not in told, place
    assert str(NUMBER) not in told, place


def caught(read: Callable[[Any], object], raw: object) -> Exception | None:
    try:
        read(raw)
    except (ContractViolation, ValidationError) as error:
        return error
    return None


@pytest.mark.parametrize("song", SONGS, ids=lambda song: type(song).__name__)
def test_no_refusal_and_no_repr_repeats_a_value(song: object) -> None:
    """A canary in every value position, one at a time: whatever is said about it, it is not said itself."""
    refused = 0
    for place in places(ENVELOPE):
        raw = replaced(ENVELOPE, place, song)
        if error := caught(GenerationRequest.parse, raw):
            refused += 1
            assert_silent(error, place)
        else:
            assert CANARY not in repr(GenerationRequest.parse(raw).body), place

    assert refused > 20


@pytest.mark.parametrize("song", SONGS, ids=lambda song: type(song).__name__)
def test_a_request_built_in_code_does_not_repeat_values_either(song: object) -> None:
    """The error of pydantic itself is as silent, for those who build a request without `parse`."""
    wholes: list[tuple[Json, Callable[[Any], object]]] = [
        (ENVELOPE, GenerationRequest.model_validate),
        (ENVELOPE["body"], ResponsesRequest.model_validate),
    ]
    for whole, read in wholes:
        for place in places(whole):
            if error := caught(read, replaced(whole, place, song)):
                assert_silent(error, place)


def test_what_was_generated_is_not_repeated() -> None:
    """Neither a result that cannot be read, nor the repr of one that can, shows an output."""
    output = [{"type": "message", "content": [{"type": "output_text", "text": CANARY}], "extra": CANARY}]
    response = {"status": "completed", "output": output, "note": CANARY}
    with pytest.raises(ContractViolation) as broken:
        GenerationResult.from_entry({"result": json.dumps({"response": response, "outcome": CANARY})})
    with pytest.raises(ContractViolation) as cut:
        GenerationResult.from_entry({"result": json.dumps(response)[:-1]})

    assert_silent(broken.value)
    assert_silent(cut.value)
    assert CANARY not in repr(ResponseObject.model_validate(response))
