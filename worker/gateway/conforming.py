"""An answer as the exported JSON Schema has it: what the contract's reading passes over is written as it is read.

Readers in Python pass over an `id` that is a list, and read the number 7 as "7". A reader made from the schema cannot.
So a known field of a wrong type becomes what the contract reads in it, mostly null. Every other byte stays.
"""

import json
from collections.abc import Mapping
from typing import Any, Final, cast

from pydantic import BaseModel

from api_contracts.responses import ResponseObject
from worker.gateway.members import replaced
from worker.gateway.repair import Document

Object = dict[str, Any]

_LOOSE: Final = ("id", "object", "model", "created_at", "completed_at")
_COUNTS: Final = ("input_tokens", "output_tokens", "total_tokens")
_DETAILS: Final = {"input_tokens_details": "cached_tokens", "output_tokens_details": "reasoning_tokens"}


def conforming(document: Document, read: ResponseObject) -> bytes:
    """The document's bytes, with `read` in place of known fields that the schema refuses."""
    response = cast("Object", document.value)
    changes: Object = {name: _null_or(read, name) for name in _LOOSE if not _same(response, read, name)}
    for name, conforms in (("usage", _is_usage), ("error", _is_error), ("incomplete_details", _is_reason)):
        value = response.get(name)
        if value is not None and not conforms(value):
            known: BaseModel | None = getattr(read, name)
            changes[name] = known and known.model_dump(mode="json")
    written = {name: json.dumps(value).encode() for name, value in changes.items()}
    return replaced(document.raw, written) if written else document.raw


def _same(response: Object, read: ResponseObject, name: str) -> bool:
    value = response.get(name)
    return not isinstance(value, bool) and value == getattr(read, name)


def _null_or(read: ResponseObject, name: str) -> object:
    value = getattr(read, name)
    return None if isinstance(value, bool) else value


def _is_count(value: object) -> bool:
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return whole and not isinstance(value, bool) and cast("float", value) >= 0


def _is_usage(value: object) -> bool:
    if not isinstance(value, dict):
        return False
    usage = cast("Object", value)
    details = [(usage.get(name), count) for name, count in _DETAILS.items()]
    return all(_is_count(usage.get(name, 0)) for name in _COUNTS) and all(
        part is None or (isinstance(part, dict) and _is_count(cast("Object", part).get(count, 0)))
        for part, count in details
    )


def _is_error(value: object) -> bool:
    return isinstance(value, dict) and _texts(cast("Object", value), ("code", "message", "type", "param"))


def _is_reason(value: object) -> bool:
    return isinstance(value, dict) and _texts(cast("Object", value), ("reason",))


def _texts(value: Mapping[str, Any], names: tuple[str, ...]) -> bool:
    return all(isinstance(value.get(name), str | None) for name in names)
