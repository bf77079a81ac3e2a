"""From the bytes of a 200 to an `Answer` or a `Failure`, without I/O.

What the upstream wrote is published byte for byte wherever it is a valid response object. Where it is nearly
one, `repair.py` and `shape.py` mend what is plain and nothing else. What says that it is completed is never
bought again. Whatever is published must be readable as the contract's `ResponseObject`, at any depth that
the client's parser takes. Usage that cannot be read costs nothing but itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, cast

from pydantic import ValidationError

from api_contracts.responses import ResponseObject, Usage
from worker.failures.failure import Failure, Route, from_object, invalid_response
from worker.gateway.conforming import conforming
from worker.gateway.members import TooManyError
from worker.gateway.repair import TOO_MANY, Document, Unreadable, read_json
from worker.gateway.shape import NOTHING_STREAMED, Streamed, shaped, unwrapped

_BLANK: Final = b"\xef\xbb\xbf\xff\xfe\x00 \t\r\n"
_FIELDS: Final = (b"event:", b"data:", b":", b"id:", b"retry:")
_HEAD_BYTES: Final = max(map(len, _FIELDS))
TOO_LARGE: Final = Unreadable("it is too large", oversized=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A ResponseObject worth publishing, `raw` as the upstream sent it or mended; `failure` is set iff incomplete."""

    raw: bytes = field(repr=False)
    status: Literal["completed", "incomplete"]
    failure: Failure | None = None
    usage: Usage | None = None
    model: str | None = None
    response_id: str | None = None


def tells_its_kind(head: bytes) -> bool:
    """Whether `head`, the beginning of a body, is enough for `is_event_stream`."""
    return len(head.lstrip(_BLANK)) >= _HEAD_BYTES


def is_event_stream(content_type: str, head: bytes) -> bool:
    """Whether a body that starts with `head` is read as events.

    An object is an object under any label: gateways announce a stream and then report an error as plain JSON.
    """
    start = head.lstrip(_BLANK)
    labelled = content_type.lower().startswith("text/event-stream")
    return not start.startswith((b"{", b"[")) and (labelled or start.startswith(_FIELDS))


def read_document(body: bytes, headers: Mapping[str, str], http_status: int) -> Answer | Failure:
    """The outcome that a whole 2xx body tells."""
    document = read_json(body)
    if isinstance(document, Unreadable):
        return unusable(document, http_status)
    try:
        inner, stated = unwrapped(document)
        return read_response(inner, headers, http_status, stated=stated)
    except TooManyError:
        return unusable(TOO_MANY, http_status)


def read_response(
    document: Document,
    headers: Mapping[str, str],
    http_status: int,
    *,
    stated: str = "",
    streamed: Streamed = NOTHING_STREAMED,
) -> Answer | Failure:
    """The outcome that a response object tells, with what its stream had told before it. Raises TooManyError."""
    mended = shaped(document, stated, streamed)
    failure = from_object(mended.value, mended.raw, headers)
    if failure is not None and failure.response is None:
        return failure
    read = _readable(mended.value)
    if read is None:
        return invalid_response("it breaks the contract", http_status)
    raw = conforming(mended, read)
    if failure is not None:
        failure = replace(failure, response=raw)
        if read.status != "incomplete":
            return failure
    return Answer(
        raw=raw,
        status="incomplete" if failure else "completed",
        failure=failure,
        usage=read.usage,
        model=read.model,
        response_id=read.id,
    )


def unusable(document: Unreadable, http_status: int) -> Failure:
    """The failure of a body that is none; one that is too large would be as large again, so it is final."""
    failure = invalid_response(document.reason, http_status)
    return replace(failure, route=Route.ANSWER, max_attempts=None, retryable=False) if document.oversized else failure


def _readable(response: object) -> ResponseObject | None:
    """The contract's reading; `shaped` has looked at the items of its output already."""
    body = dict(cast("dict[str, Any]", response))
    if isinstance(body.get("output"), list):
        body["output"] = []
    try:
        return ResponseObject.model_validate(body)
    except ValidationError:
        return None
