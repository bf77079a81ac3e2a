"""From the bytes of a 200 to an `Answer` or a `Failure`, without I/O.

What the upstream wrote is published byte for byte, so the ResponseObject inside a terminal event is cut out
of the event, never encoded again. Whatever is published must be readable as the contract's `ResponseObject`,
and an answer needs its `id` as well. A missing `status` is not guessed from the presence of output: nothing
else tells a whole answer from the beginning of one. Usage that cannot be read costs nothing but itself.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, cast

import orjson
from pydantic import ValidationError

from api_contracts.responses import TERMINAL_EVENTS, ResponseObject, Usage
from worker.failures.error_reader import stated_error
from worker.failures.failure import Failure, from_object, invalid_response
from worker.gateway.sse import Event

_STRING: Final = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_MEMBER: Final = re.compile(rb"[\s,{]*+(" + _STRING + rb")\s*+:\s*+", re.DOTALL)
_SCALAR: Final = re.compile(_STRING + rb"|[^\s,\]}]++", re.DOTALL)
_UP_TO_BRACKET: Final = re.compile(rb'(?:[^"{}\[\]]++|' + _STRING + rb")*+", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A ResponseObject worth publishing, `raw` as the upstream sent it; `failure` is set iff incomplete."""

    raw: bytes = field(repr=False)
    status: Literal["completed", "incomplete"]
    failure: Failure | None = None
    usage: Usage | None = None
    model: str | None = None
    response_id: str | None = None


def is_event_stream(content_type: str, head: bytes) -> bool:
    """Whether a body that starts with `head` is read as events.

    An object is an object under any label: gateways announce a stream and then report an error as plain JSON.
    """
    start = head.lstrip()[:6]
    labelled = content_type.lower().startswith("text/event-stream")
    return not start.startswith(b"{") and (labelled or start.startswith((b"event:", b"data:", b":")))


def read_document(body: bytes, headers: Mapping[str, str], http_status: int) -> Answer | Failure:
    """The outcome that a whole 2xx body tells."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return invalid_response("it is not JSON" if body.strip() else "it is empty", http_status)
    return _read_response(document, body, headers, http_status)


def read_event(event: Event, headers: Mapping[str, str], http_status: int) -> Answer | Failure | None:
    """The outcome that a terminal event tells; None for others, and for one whose data is not an object."""
    try:
        document = orjson.loads(event.data)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(document, dict):
        return None
    said = cast("dict[str, object]", document)
    kind = said.setdefault("type", event.name)
    response = said.get("response")
    if kind in TERMINAL_EVENTS and isinstance(response, dict) and (raw := member_bytes(event.data, "response")):
        return _read_response(cast("object", response), raw, headers, http_status)
    if kind in TERMINAL_EVENTS or stated_error(said) is not None:
        return _read_response(said, event.data, headers, http_status)
    return None


def _read_response(response: object, raw: bytes, headers: Mapping[str, str], http_status: int) -> Answer | Failure:
    failure = from_object(response, raw, headers)
    if failure is not None and failure.response is None:
        return failure
    try:
        read = ResponseObject.model_validate(response)
    except ValidationError:
        return invalid_response("it breaks the contract", http_status)
    if failure is not None and read.status != "incomplete":
        return failure
    if read.id is None:
        return invalid_response("it has no id", http_status)
    return Answer(
        raw=raw,
        status="incomplete" if failure else "completed",
        failure=failure,
        usage=read.usage,
        model=read.model,
        response_id=read.id,
    )


def member_bytes(document: bytes, name: str) -> bytes | None:
    """The value of the object's own member `name`, exactly as written in `document`; None if it has none.

    `document` must be a valid JSON object: this looks for ends and checks nothing. Of members that share a
    name the last one counts, as for other decoders. Members of nested objects are never looked at.
    """
    found, position = None, 0
    while key := _MEMBER.match(document, position):
        start = key.end()
        position = _value_end(document, start)
        if orjson.loads(key[1]) == name:
            found = document[start:position]
    return found


def _value_end(document: bytes, start: int) -> int:
    if document[start] not in b"{[":
        return cast("re.Match[bytes]", _SCALAR.match(document, start)).end()
    depth, position = 1, start + 1
    while depth:
        bracket = cast("re.Match[bytes]", _UP_TO_BRACKET.match(document, position)).end()
        depth += 1 if document[bracket] in b"{[" else -1
        position = bracket + 1
    return position
