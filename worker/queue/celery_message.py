"""Celery's message protocol 2, from bytes to the one argument of our task, and what is wrong where it is not that.

We read it ourselves: kombu's decoder turns `{"__type__": ...}` inside `tools` into objects, accepts NaN, and ends the
worker on what it cannot read. (Protocol: docs.celeryq.dev/en/stable/internals/protocol.html)
"""

import base64
import binascii
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, cast

import msgspec
import orjson

from api_contracts import Violation
from api_contracts.limits import too_complex
from api_contracts.queues import TASK_NAME
from worker.queue.identity import as_object, read_loosely

known_tasks: Final = {TASK_NAME}
"""Names of Celery tasks that the lanes may carry; the worker's app adds what `worker.tasks` registers."""

_TASK: Final = re.compile(rb'"task"\s*:\s*"([A-Za-z0-9_.\-]{1,128})"')
_ZEROS: Final = bytes.maketrans(b"123456789", b"000000000")
_MANY_DIGITS: Final = b"0" * 309
"""Of an integer beyond a double."""
STRICT_JSON: Final = "must be strict JSON (RFC 8259) in UTF-8: no NaN, no lone surrogates, nothing cut off"


class BrokenMessageError(Exception):
    """A part of the message is not as Celery writes it; `violation` names the part and what would be right."""

    def __init__(self, part: str, wanted: str, *, too_large: bool = False) -> None:
        super().__init__(wanted)
        self.violation = Violation(field=part, message=wanted, type="message")
        self.too_large = too_large


def read_outer(raw: bytes) -> Mapping[str, Any]:
    """The message around the body, as an object. Raises BrokenMessageError."""
    outer = _loads(raw, "message")
    if not isinstance(outer, dict):
        raise BrokenMessageError("message", "must be a JSON object")
    return cast("dict[str, Any]", outer)


def read_envelope(outer: Mapping[str, Any], headers: Mapping[str, Any]) -> object:
    """The task's only argument. Raises BrokenMessageError."""
    _check_headers(outer, headers)
    return _argument(_loads(_body(outer), "body"))


def guess_envelope(outer: Mapping[str, Any]) -> object:
    """The envelope of a body that a stricter reader refused, for its ids alone; None where nothing can be read."""
    try:
        encoded = _body(outer)
        return None if too_complex(encoded, "body") else _argument(read_loosely(encoded))
    except BrokenMessageError:
        return None


def read_time(headers: Mapping[str, Any], name: str) -> datetime | None:
    """The time in a header, aware; None where there is none. Raises BrokenMessageError."""
    text = headers.get(name)
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        raise BrokenMessageError(f"headers.{name}", "must be an ISO 8601 time") from None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def task_name(raw: bytes) -> str | None:
    """The name of the Celery task that a message is for, found without parsing its body."""
    found = _TASK.match(raw, raw.find(b'"task"')) if b'"task"' in raw else None
    return found[1].decode() if found else None


def headers_of(raw: bytes) -> Mapping[str, Any]:
    """The Celery headers of a message; empty where they cannot be read."""
    try:
        return as_object(as_object(msgspec.json.decode(raw)).get("headers"))
    except (ValueError, RecursionError):
        return {}


def _loads(document: bytes, part: str) -> object:
    if violation := too_complex(document, part):
        raise BrokenMessageError(part, violation.message)
    try:
        value = msgspec.json.decode(document)  # orjson takes twelve times the size of a large document
        if _MANY_DIGITS in document.translate(_ZEROS):
            orjson.dumps(value)  # refuses integers that no reader takes
    except (TypeError, ValueError):
        raise BrokenMessageError(part, STRICT_JSON) from None
    return value


def _check_headers(outer: Mapping[str, Any], headers: Mapping[str, Any]) -> None:
    if not headers:
        raise BrokenMessageError("headers", "must be an object: Celery's message protocol 2 (task_protocol = 2)")
    if headers.get("task") != TASK_NAME:
        names = " or ".join(sorted(known_tasks))
        raise BrokenMessageError("headers.task", f"must be {names}: these lanes carry no other task")
    if outer.get("content-type") != "application/json":
        raise BrokenMessageError("content-type", "must be application/json (task_serializer = 'json')")
    if headers.get("compression"):
        raise BrokenMessageError("headers.compression", "must be absent: compressed bodies are not read")


def _body(outer: Mapping[str, Any]) -> bytes:
    body, encoding = outer.get("body"), as_object(outer.get("properties")).get("body_encoding")
    if not isinstance(body, str):
        raise BrokenMessageError("body", "must be a string, as Celery's JSON serializer writes it")
    if encoding != "base64":
        return body.encode()
    try:
        return base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError):
        raise BrokenMessageError("body", "must be valid base64, as properties.body_encoding says") from None


def _argument(body: object) -> object:
    """The envelope: the task's only argument, by position or as `envelope=`."""
    if not isinstance(body, list) or len(cast("list[object]", body)) != 3:  # noqa: PLR2004  # args, kwargs, embed
        raise BrokenMessageError("body", "must be [args, kwargs, embed]: Celery's message protocol 2")
    args, kwargs, embed = cast("list[object]", body)
    given = [*(cast("list[object]", args) if isinstance(args, list) else []), *as_object(kwargs).values()]
    if len(given) != 1 or not set(as_object(kwargs)) <= {"envelope"}:
        raise BrokenMessageError("args", "must hold exactly one argument: the envelope")
    if any(as_object(embed).values()):
        raise BrokenMessageError("embed", "must be empty: callbacks, chains and chords are not run for this task")
    return given[0]
