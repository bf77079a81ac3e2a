"""From a lane's raw bytes to a request, or to the reason why it is none.

We read Celery's message protocol 2 ourselves: kombu's decoder turns `{"__type__": ...}` inside `tools` into
objects, accepts NaN, and ends the worker on what it cannot read. Whatever goes wrong here still yields the ids
an answer needs, as far as any can be read.
(Protocol: docs.celeryq.dev/en/stable/internals/protocol.html)
"""

import base64
import binascii
import hashlib
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, cast

import orjson

from api_contracts import ContractViolation, GenerationRequest, Violation
from api_contracts.fingerprints import fingerprint
from api_contracts.queues import DEFAULT_TENANT, TASK_NAME

_NAME: Final = re.compile(r"[A-Za-z0-9._:\-]+")
_TRACE: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}.*")
_ID_IN_TEXT: Final = re.compile(rb'"(?:request_id|correlation_id|id)"\s*:\s*"([A-Za-z0-9._:\-]{1,128})"')
_TASK: Final = re.compile(rb'"task"\s*:\s*"([A-Za-z0-9_.\-]{1,128})"')
_SEARCHED: Final = 64 * 1024
"""How much of either end of a broken message is searched for an id."""

_AROUND: Final = 64 * 1024
"""Room for what Celery writes around a body."""

known_tasks: Final = {TASK_NAME}
"""Names of Celery tasks that the lanes may carry; the worker's app adds what `worker.tasks` registers."""

_STRICT_JSON: Final = "must be strict JSON (RFC 8259) in UTF-8: no NaN, no lone surrogates, nothing cut off"


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A message whose sender can be answered: `request` is set, or `violations` say why it is none."""

    task_id: str
    tenant: str
    request_id: str
    reply_to: str | None
    fingerprint: str
    request: GenerationRequest | None = field(default=None, repr=False)
    body: bytes = field(default=b"", repr=False)
    """What goes upstream: the caller's body as it was written, `extra_body` merged in."""
    violations: tuple[Violation, ...] = ()
    too_large: bool = False
    dead: str = ""
    """Why the message is also a dead letter: an answer alone would hide what could not be read."""
    eta: datetime | None = None
    expires: datetime | None = None
    traceparent: str | None = None
    trace_id: str = ""
    """The caller's trace, or one of our own: logs, Sentry and the result all carry it."""

    @property
    def streams(self) -> bool:
        """Whether the caller asked for token deltas."""
        return bool(self.request and self.request.body.stream)

    @property
    def max_output_tokens(self) -> int | None:
        return self.request.body.max_output_tokens if self.request else None

    @property
    def metadata(self) -> Mapping[str, str]:
        return self.request.metadata if self.request else {}


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A message nobody can be answered for; it becomes a dead letter."""

    reason: str


class _BrokenError(Exception):
    """A part of the message that is not as Celery writes it."""

    def __init__(self, part: str, wanted: str, *, too_large: bool = False) -> None:
        super().__init__(wanted)
        self.violation = Violation(field=part, message=wanted, type="message")
        self.too_large = too_large


def decode(raw: bytes, *, max_body: int) -> Message | Unreadable:
    """Never raises; `max_body` bounds, in bytes, what is worth decoding, and thereby the memory it takes."""
    if len(raw) > 2 * max_body + _AROUND:  # base64 adds a third; JSON escapes may add more
        return _scavenge(raw, _oversized(max_body))
    try:
        outer = _object(orjson.loads(raw), "message")
    except (orjson.JSONDecodeError, _BrokenError):
        return _scavenge(raw, _BrokenError("message", _STRICT_JSON), dead="not a JSON object")
    headers = _mapping(outer.get("headers"))
    envelope: object = None
    try:
        _check_headers(outer, headers)
        envelope = _argument(_body(outer))
        request = GenerationRequest.parse(envelope)
        wire = _wire(request, max_body)
        eta, expires = _time(headers, "eta"), _time(headers, "expires")
    except ContractViolation as invalid:
        return _message(outer, headers, envelope, violations=tuple(invalid.violations))
    except _BrokenError as broken:
        return _message(outer, headers, envelope, violations=(broken.violation,), too_large=broken.too_large)
    return _message(outer, headers, envelope, request=request, body=wire, eta=eta, expires=expires)


def task_name(raw: bytes) -> str | None:
    """The name of the Celery task that a message is for, found without parsing its body."""
    found = _TASK.match(raw, raw.find(b'"task"')) if b'"task"' in raw else None
    return found[1].decode() if found else None


def headers_of(raw: bytes) -> Mapping[str, Any]:
    """The Celery headers of a message; empty where they cannot be read."""
    try:
        return _mapping(_mapping(orjson.loads(raw)).get("headers"))
    except orjson.JSONDecodeError:
        return {}


def _message(
    outer: Mapping[str, Any], headers: Mapping[str, Any], envelope: object, **found: Any
) -> Message | Unreadable:
    given = _mapping(envelope)
    task_id = _first_name(headers.get("id"), _mapping(outer.get("properties")).get("correlation_id"))
    request_id = _first_name(given.get("request_id")) or task_id
    if request_id is None:
        return Unreadable("no id: neither headers.id nor properties.correlation_id nor request_id can be read")
    traceparent = _traceparent(given, headers)
    return Message(
        task_id=task_id or request_id,
        tenant=_first_name(given.get("tenant"), longest=64) or DEFAULT_TENANT,
        request_id=request_id,
        reply_to=_first_name(given.get("reply_to"), longest=64),
        fingerprint=fingerprint(given["body"] if "body" in given else outer.get("body")),
        traceparent=traceparent,
        trace_id=_trace_id(traceparent),
        **found,
    )


def _check_headers(outer: Mapping[str, Any], headers: Mapping[str, Any]) -> None:
    if not headers:
        raise _BrokenError("headers", "must be an object: Celery's message protocol 2 (task_protocol = 2)")
    if headers.get("task") != TASK_NAME:
        names = " or ".join(sorted(known_tasks))
        raise _BrokenError("headers.task", f"must be {names}: these lanes carry no other task")
    if outer.get("content-type") != "application/json":
        raise _BrokenError("content-type", "must be application/json (task_serializer = 'json')")
    if headers.get("compression"):
        raise _BrokenError("headers.compression", "must be absent: compressed bodies are not read")


def _body(outer: Mapping[str, Any]) -> object:
    body, encoding = outer.get("body"), _mapping(outer.get("properties")).get("body_encoding")
    if not isinstance(body, str):
        raise _BrokenError("body", "must be a string, as Celery's JSON serializer writes it")
    try:
        return orjson.loads(base64.b64decode(body, validate=True) if encoding == "base64" else body)
    except orjson.JSONDecodeError:
        raise _BrokenError("body", _STRICT_JSON) from None
    except (binascii.Error, ValueError):
        raise _BrokenError("body", "must be valid base64, as properties.body_encoding says") from None


def _argument(body: object) -> object:
    """The envelope: the task's only argument, by position or as `envelope=`."""
    if not isinstance(body, list) or len(cast("list[object]", body)) != 3:  # noqa: PLR2004  # args, kwargs, embed
        raise _BrokenError("body", "must be [args, kwargs, embed]: Celery's message protocol 2")
    args, kwargs, embed = cast("list[object]", body)
    given = [*(cast("list[object]", args) if isinstance(args, list) else []), *_mapping(kwargs).values()]
    if len(given) != 1 or not set(_mapping(kwargs)) <= {"envelope"}:
        raise _BrokenError("args", "must hold exactly one argument: the envelope")
    if any(_mapping(embed).values()):
        raise _BrokenError("embed", "must be empty: callbacks, chains and chords are not run for this task")
    return given[0]


def _wire(request: GenerationRequest, max_body: int) -> bytes:
    try:
        wire = orjson.dumps(request.wire_body())
    except TypeError:
        raise _BrokenError("body", "must nest at most 254 levels deep and hold numbers of at most 64 bits") from None
    if len(wire) > max_body:
        raise _oversized(max_body)
    return wire


def _oversized(max_body: int) -> _BrokenError:
    return _BrokenError("body", f"must stay under {max_body} bytes (WORKER_MAX_BODY)", too_large=True)


def _time(headers: Mapping[str, Any], name: str) -> datetime | None:
    text = headers.get(name)
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        raise _BrokenError(f"headers.{name}", "must be an ISO 8601 time") from None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def _scavenge(raw: bytes, broken: _BrokenError, *, dead: str = "") -> Message | Unreadable:
    """Not to be parsed: an id somewhere in it is still somebody waiting."""
    found = _ID_IN_TEXT.search(raw[:_SEARCHED]) or _ID_IN_TEXT.search(raw[-_SEARCHED:])
    if not found:
        return Unreadable(f"{dead or 'too large'}, and no id can be read in it")
    request_id = found[1].decode()
    return Message(
        task_id=request_id,
        tenant=DEFAULT_TENANT,
        request_id=request_id,
        reply_to=None,
        fingerprint=hashlib.sha256(raw).hexdigest(),
        violations=(broken.violation,),
        too_large=broken.too_large,
        dead=dead,
        trace_id=_trace_id(None),
    )


def _traceparent(envelope: Mapping[str, Any], headers: Mapping[str, Any]) -> str | None:
    """W3C trace context: the envelope's, or one made of Celery's `sentry-trace` header (same id sizes)."""
    given = envelope.get("traceparent") or headers.get("traceparent")
    if isinstance(given, str):
        return given
    sentry = headers.get("sentry-trace")
    parts = sentry.split("-") if isinstance(sentry, str) else []
    if len(parts) < 2:  # noqa: PLR2004  # trace id and span id; the sampled flag is optional
        return None
    return f"00-{parts[0]}-{parts[1]}-{'01' if parts[2:] == ['1'] else '00'}"


def _trace_id(traceparent: str | None) -> str:
    found = _TRACE.fullmatch(traceparent or "")
    return found[1] if found else secrets.token_hex(16)


def _first_name(*candidates: object, longest: int = 128) -> str | None:
    for candidate in candidates:
        if isinstance(candidate, str) and len(candidate) <= longest and _NAME.fullmatch(candidate):
            return candidate
    return None


def _object(value: object, part: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise _BrokenError(part, "must be a JSON object")
    return cast("dict[str, Any]", value)


def _mapping(value: object) -> Mapping[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}
