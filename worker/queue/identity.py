"""The owner of a message: the ids and the address that an answer needs, as far as any can be read.

Celery task ids are free text. An id that is a whole number or a UUID object reads as its text. Any other id that
is no name of ours gets a derived one, `sha256-` and 32 hex digits, which its sender can compute as well.
"""

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast
from uuid import UUID

from api_contracts.limits import MAX_ID_CHARS, MAX_METADATA, MAX_METADATA_CHARS, MAX_NAME_CHARS
from api_contracts.queues import DEFAULT_TENANT
from worker.queue.torn_text import members, members_from_behind

DERIVED_RULE: Final = (
    f"must be 1 to {MAX_ID_CHARS} characters of A-Za-z0-9._:- or the envelope must hold such a request_id; "
    "this answer is for `sha256-` and the first 32 hex digits of the id's SHA-256"
)
"""The advice for a sender whose id is no name."""

_NAME: Final = re.compile(r"[A-Za-z0-9._:\-]+")

_SEARCHED: Final = 64 * 1024
"""Bytes at either end of a message beyond repair in which ids are looked for."""

_OF_MESSAGE: Final = re.compile(rb'(?<!\\)"(correlation_id|id)"\s*:\s*"([A-Za-z0-9._:\-]{1,128})"')
_BODY: Final = re.compile(rb'"body"\s*:\s*"')
_BASE64: Final = re.compile(rb"[A-Za-z0-9+/]{16,}=*+")
_REST_OF_STRING: Final = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """To whom an answer goes. `owned` is False where the ids may be somebody else's: such ids are never claimed."""

    task_id: str
    request_id: str
    tenant: str = DEFAULT_TENANT
    reply_to: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    owned: bool = True
    derived: bool = False
    """The request's only id is a Celery task id that is no name."""


def identify(outer: Mapping[str, Any], headers: Mapping[str, Any], envelope: object) -> Identity | None:
    """The identity that a decoded message states; None where it holds no id at all."""
    given = as_object(envelope)
    properties = as_object(outer.get("properties"))
    task_id = task_id_of(headers.get("id")) or task_id_of(properties.get("correlation_id"))
    request_id = as_name(given.get("request_id"), MAX_ID_CHARS)
    if task_id is None and request_id is None:
        return None
    tenant = as_name(given.get("tenant", DEFAULT_TENANT), MAX_NAME_CHARS)
    own_id = request_id if tenant else None
    known_id = own_id or task_id or cast("str", request_id)
    return Identity(
        task_id=task_id or known_id,
        request_id=known_id,
        tenant=tenant or DEFAULT_TENANT,
        reply_to=as_name(given.get("reply_to"), MAX_NAME_CHARS),
        metadata=_metadata(given.get("metadata")),
        owned=tenant is not None,
        derived=request_id is None and not _is_plain(headers.get("id"), properties.get("correlation_id")),
    )


def recover(raw: bytes) -> Identity | None:
    """The identity found in the text of a message that cannot be decoded; None where no id is found."""
    given, around = _envelope_in(raw), _ids_around(raw)
    task_id = around.get(b"id") or around.get(b"correlation_id")
    request_id = _name_in(given, b"request_id", MAX_ID_CHARS) or task_id
    if request_id is None:
        return None
    return Identity(
        task_id=task_id or request_id,
        request_id=request_id,
        tenant=_name_in(given, b"tenant", MAX_NAME_CHARS) or DEFAULT_TENANT,
        reply_to=_name_in(given, b"reply_to", MAX_NAME_CHARS),
        metadata=_metadata(read_loosely(given.get(b"metadata", b""))),
    )


def task_id_of(value: object) -> str | None:
    """The name of a Celery task id: its own text, or one derived from it; None where there is no id.

    kombu writes a UUID object as `{"__type__": "uuid", "__value__": {"hex": ...}}` (kombu `utils/json.py`).
    """
    if isinstance(value, dict):
        return _uuid(cast("dict[str, object]", value))
    if isinstance(value, bool) or not isinstance(value, str | int | float) or value == "":
        return None
    text = str(value)
    return text if as_name(text, MAX_ID_CHARS) else derived_id(text)


def derived_id(text: str) -> str:
    """The name that stands for an id which is no name."""
    return f"sha256-{hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:32]}"


def as_name(value: object, longest: int) -> str | None:
    """The value, if it is a name of the contract's alphabet and length."""
    return value if isinstance(value, str) and len(value) <= longest and _NAME.fullmatch(value) else None


def as_object(value: object) -> Mapping[str, Any]:
    """The value, if it is a JSON object, else an empty one."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def read_loosely(text: bytes) -> object:
    """The value of almost JSON: NaN, lone surrogates, control characters and bad UTF-8 pass; None for anything else."""
    try:
        return json.loads(text.decode("utf-8", "replace"), strict=False)
    except (ValueError, RecursionError):
        return None


def _is_plain(*ids: object) -> bool:
    return any(task_id_of(value) not in (None, derived_id(str(value))) for value in ids)


def _uuid(value: Mapping[str, object]) -> str | None:
    written = value.get("__value__")
    digits = as_object(written).get("hex", written)
    try:
        return str(UUID(str(digits))) if value.get("__type__") == "uuid" else None
    except ValueError:
        return None


def _metadata(value: object) -> Mapping[str, str]:
    """The part that can be echoed: nothing, where any of it breaks the contract."""
    pairs = as_object(value)
    fits = len(pairs) <= MAX_METADATA and all(
        isinstance(text, str) and len(text) <= MAX_METADATA_CHARS and _is_text(name + text)
        for name, text in pairs.items()
    )
    return pairs if fits else {}


def _is_text(text: str) -> bool:
    """Whether UTF-8 can carry it: a lone surrogate cannot be published."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _envelope_in(raw: bytes) -> Mapping[bytes, bytes]:
    """The envelope's members as written, from the beginning and the end of the body."""
    body = _BODY.search(raw, 0, _SEARCHED)
    if body is None:
        return {}
    first, last = _body_ends(raw, body.end())
    return {**dict(members_from_behind(last)), **dict(members(first))}


def _ids_around(raw: bytes) -> Mapping[bytes, str]:
    """Celery's own ids, beside the body."""
    found: dict[bytes, str] = {}
    for text in (raw[:_SEARCHED], raw[-_SEARCHED:]):
        for name, value in _OF_MESSAGE.findall(text):
            found.setdefault(name, value.decode())
    return found


def _name_in(given: Mapping[bytes, bytes], name: bytes, longest: int) -> str | None:
    written = given.get(name, b"")
    return as_name(written[1:-1].decode("utf-8", "replace"), longest) if written[:1] == b'"' else None


def _body_ends(raw: bytes, start: int) -> tuple[bytes, bytes]:
    """The first and the last part of the body's text, whether it is encoded or a string with escapes."""
    encoded = _BASE64.match(raw, start)
    if encoded is None:
        return _unescaped(raw[start : start + _SEARCHED]), _unescaped(_end_of_string(raw, start))
    whole = encoded[0][: len(encoded[0]) // 4 * 4]
    return _decode_base64(whole[:_SEARCHED]), _decode_base64(whole[-_SEARCHED:])


def _end_of_string(raw: bytes, start: int) -> bytes:
    """The last part of a string that is closed somewhere near the end of the message."""
    near = max(start, len(raw) - _SEARCHED)
    while near > start and raw[near - 1 : near] == b"\\":
        near -= 1  # an escape is not torn apart
    rest = _REST_OF_STRING.match(raw, near)
    return rest[0] if rest else b""


def _unescaped(text: bytes) -> bytes:
    return text.replace(rb"\"", b'"').replace(rb"\\", b"\\")


def _decode_base64(text: bytes) -> bytes:
    try:
        return base64.b64decode(text)
    except binascii.Error:
        return b""
