"""A published answer matches the exported schema: known fields of a wrong type are written as they are read."""

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from support.distortions import encoded, message, response

from api_contracts.responses import ResponseObject
from worker.gateway.answers import Answer, read_document

SCHEMA: Any = Draft202012Validator(ResponseObject.model_json_schema())
STRANGE: list[Any] = [7, 1.5, True, [], {}, [["x"]], {"a": None}]


def published(answer: dict[str, Any]) -> dict[str, Any]:
    read = read_document(encoded(answer), {}, 200)
    assert isinstance(read, Answer)
    found: dict[str, Any] = json.loads(read.raw)
    SCHEMA.validate(found)
    return found


@pytest.mark.parametrize("value", STRANGE, ids=repr)
@pytest.mark.parametrize("name", ["id", "object", "model", "created_at", "completed_at", "usage", "incomplete_details"])
def test_a_field_of_a_wrong_type_is_written_as_it_is_read(name: str, value: Any) -> None:
    found = published(response("hi") | {name: value, "new": value})

    assert found["new"] == value
    assert found["output"] == [message("hi")]


@pytest.mark.parametrize("value", STRANGE, ids=repr)
@pytest.mark.parametrize("name", ["id", "type", "role", "status"])
def test_so_is_one_of_an_item_and_of_its_parts(name: str, value: Any) -> None:
    """Only the item that needs it is written anew."""
    item = message("hi") | {name: value}
    part = {"type": "output_text", "text": "more", "annotations": value, "logprobs": value}

    found = published(response("hi") | {"output": [message("first"), item, message("") | {"content": [part]}]})

    assert found["output"][0] == message("first")
    assert found["output"][1]["content"] == item["content"]
    assert found["output"][2]["content"][0]["logprobs"] == value


def test_usage_keeps_the_counts_that_can_be_read() -> None:
    found = published(response("hi") | {"usage": {"input_tokens": None, "output_tokens": 3, "total_tokens": 3}})

    assert (found["usage"]["input_tokens"], found["usage"]["output_tokens"]) == (0, 3)


def test_an_answer_that_matches_stays_byte_for_byte() -> None:
    written = json.dumps(response("h\u00e9"), indent=3).encode()
    read = read_document(written, {}, 200)

    assert isinstance(read, Answer)
    assert read.raw == written
