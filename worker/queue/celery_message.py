"""Celery's message protocol 2, from bytes to the one argument of our task, and what is wrong where it is not that.

We read it ourselves: kombu's decoder turns `{"__type__": ...}` inside `tools` into objects, accepts NaN, and ends the
worker on what it cannot read. (Protocol: docs.celeryq.dev/en/stable/internals/protocol.html)
"""

import base64
import binascii
import re
import secrets
from collections.abc import Mapping
from contextlib import suppress
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
_BASE64: Final = msgspec.json.Decoder(bytes)
"""Three times as fast as `binascii`, and stricter: where it refuses, `binascii` has the last word."""
_STAND_IN: Final = secrets.token_hex(16)
"""Stands for a body that is read by itself. Nobody can guess it, so no message holds it in another place."""
_ZEROS: Final = bytes.maketrans(b"123456789", b"000000000")
_MANY: Final = 309
"""Digits of an integer beyond a double."""
_STRIDE: Final = 16
"""One byte in so many is looked at first. Digits of such a number are seen by 19 looks in a row."""
STRICT_JSON: Final = "must be strict JSON (RFC 8259) in UTF-8: no NaN, no lone surrogates, nothing cut off"


class BrokenMessageError(Exception):
    """A part of the message is not as Celery writes it; `violation` names the part and what would be right."""

    def __init__(self, part: str, wanted: str, *, too_large: bool = False) -> None:
        super().__init__(wanted)
        self.violation = Violation(field=part, message=wanted, type="message")
        self.too_large = too_large


def read_outer(raw: bytes) -> Mapping[str, Any]:
    """The message around the body, as an object. Its body may be decoded already, to bytes. Raises BrokenMessageError.

    The base64 of a large body is most of a message, so it is read by itself, and no copy is made of it as text.
    """
    start, end = _middle(raw)
    if end - start > len(raw) // 2 and not _has_many_digits(raw):
        with suppress(BrokenMessageError, ValueError):
            body = _BASE64.decode(memoryview(raw)[start:end])
            outer = as_object(_loads(b'%s"%s"%s' % (raw[:start], _STAND_IN.encode(), raw[end:]), "message"))
            if outer.get("body") == _STAND_IN and _is_base64(outer):
                return {**outer, "body": body}
    return read_whole(raw)


def read_whole(raw: bytes) -> Mapping[str, Any]:
    """The message as an object, its body as it was written. Raises BrokenMessageError."""
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
    start, end = _middle(raw)
    place = raw.find(b'"task"', 0, start + len(b'"task"'))
    if place < 0:
        place = raw.find(b'"task"', end - 1)
    found = _TASK.match(raw, place) if place >= 0 else None
    return found[1].decode() if found else None


def headers_of(raw: bytes) -> Mapping[str, Any]:
    """The Celery headers of a message; empty where they cannot be read."""
    try:
        return as_object(as_object(msgspec.json.decode(raw)).get("headers"))
    except (ValueError, RecursionError):
        return {}


def _middle(raw: bytes) -> tuple[int, int]:
    """The place of the text in the middle of a message, from quote to quote: of a large one, its body."""
    middle = len(raw) // 2
    return raw.rfind(b'"', 0, middle), raw.find(b'"', middle) + 1


def _loads(document: bytes, part: str) -> object:
    if violation := too_complex(document, part):
        raise BrokenMessageError(part, violation.message)
    try:
        value = msgspec.json.decode(document)  # orjson takes twelve times the size of a large document
        if _has_many_digits(document):
            orjson.dumps(value)  # refuses integers that no reader takes
    except (TypeError, ValueError):
        raise BrokenMessageError(part, STRICT_JSON) from None
    return value


def _has_many_digits(document: bytes) -> bool:
    looks = document[::_STRIDE].translate(_ZEROS)
    return b"0" * (_MANY // _STRIDE) in looks and b"0" * _MANY in document.translate(_ZEROS)


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
    body = outer.get("body")
    if isinstance(body, bytes):
        return body
    if not isinstance(body, str):
        raise BrokenMessageError("body", "must be a string, as Celery's JSON serializer writes it")
    if not _is_base64(outer):
        return body.encode()
    try:
        return base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError):
        raise BrokenMessageError("body", "must be valid base64, as properties.body_encoding says") from None


def _is_base64(outer: Mapping[str, Any]) -> bool:
    return as_object(outer.get("properties")).get("body_encoding") == "base64"


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
