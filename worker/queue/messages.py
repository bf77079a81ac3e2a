"""From a lane's raw bytes to a request, or to the reason why it is none.

Whatever goes wrong here still yields the ids an answer needs, as far as any can be read. Of the caller's body only
the bytes that go upstream are kept: decoded, they would take up to thirty times as much memory.
"""

import hashlib
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Self

import msgspec

from api_contracts import ContractViolation, GenerationRequest, Violation
from api_contracts.envelope import Envelope
from worker.queue.celery_message import (
    BrokenMessageError,
    guess_envelope,
    read_envelope,
    read_outer,
    read_time,
    read_whole,
)
from worker.queue.fingerprints import fingerprint
from worker.queue.identity import DERIVED_RULE, Identity, as_object, identify, recover
from worker.queue.media import NO_MEDIA, Media, media_of
from worker.queue.oversize import EDGE, KEPT_WHOLE, largest_message, uncut

_TRACE: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}.*")

_HEADERS: Final = ("task", "sentry-trace", "baggage")
_LONGEST_HEADER: Final = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """The caller's wishes beside its body's content. Times are aware."""

    model: str
    """Empty where a stored template names it."""
    streams: bool
    """Whether the caller wants token deltas."""
    max_output_tokens: int | None
    enqueued_at: datetime | None
    deadline: datetime | None
    timeout: float | None
    """Seconds of one call."""
    max_attempts: int | None
    holds_schema: bool = False
    """Whether the body holds a JSON Schema of its output."""
    check_output: bool = False
    reask: int = 0
    unknown_keys: tuple[str, ...]
    affinity: str = ""
    """A fingerprint of the caller's `prompt_cache_key`, else of its `user`: such requests share a gateway's cache."""

    @classmethod
    def of(cls, request: Envelope) -> Self:
        return cls(
            model=request.body.model or "",
            streams=bool(request.body.stream),
            max_output_tokens=request.body.max_output_tokens,
            enqueued_at=request.enqueued_at,
            deadline=request.deadline,
            timeout=request.timeout,
            max_attempts=request.max_attempts,
            holds_schema=request.body.holds_schema,
            check_output=request.check_output,
            reask=request.reask,
            unknown_keys=request.unknown_keys,
            affinity=_affinity(request.wire_body()),
        )


def _affinity(body: Mapping[str, Any]) -> str:
    said = body.get("prompt_cache_key") or body.get("user")
    return hashlib.sha256(said.encode(errors="surrogatepass")).hexdigest()[:16] if isinstance(said, str) else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A message whose sender can be answered: `terms` is set, or `violations` say why it is no request."""

    identity: Identity
    fingerprint: str
    terms: Terms | None = None
    body: bytes = field(default=b"", repr=False)
    """The bytes that go upstream: the caller's body as it was written, `extra_body` merged in."""
    media: Media = NO_MEDIA
    """Images and files in the body."""
    violations: tuple[Violation, ...] = ()
    too_large: bool = False
    dead_letter_reason: str = ""
    """The reason that the message is a dead letter too: an answer alone would hide the bytes that cannot be read."""
    eta: datetime | None = None
    expires: datetime | None = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    """Celery's that are needed later: the task's name, and what Sentry's SDK wrote."""
    traceparent: str | None = None
    trace_id: str = ""
    """The caller's trace, or one of our own: logs, Sentry and the result all carry it."""

    @property
    def task_id(self) -> str:
        return self.identity.task_id

    @property
    def tenant(self) -> str:
        return self.identity.tenant

    @property
    def request_id(self) -> str:
        return self.identity.request_id

    @property
    def reply_to(self) -> str | None:
        return self.identity.reply_to

    @property
    def metadata(self) -> Mapping[str, str]:
        return self.identity.metadata

    @property
    def streams(self) -> bool:
        """Whether the caller asked for token deltas."""
        return self.terms is not None and self.terms.streams

    @property
    def max_output_tokens(self) -> int | None:
        return self.terms.max_output_tokens if self.terms else None


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A message nobody can be answered for; it becomes a dead letter."""

    reason: str


def decode(raw: bytes, *, max_body: int, contract: type[Envelope] = GenerationRequest) -> Message | Unreadable:
    """Never raises; `max_body` bounds, in bytes, what is worth decoding, and thereby the memory it takes."""
    if (cut := uncut(raw)) is not None:
        ends, size = cut
        return _recovered(ends, _oversized(max_body), dead_letter_reason=_why_dead(size, max_body))
    if len(raw) > largest_message(max_body):
        return _recovered(raw, _oversized(max_body), dead_letter_reason=_why_dead(len(raw), max_body))
    try:
        outer = read_outer(raw)
    except BrokenMessageError as broken:
        return _recovered(raw, broken, dead_letter_reason="not a JSON object")
    return _decoded(raw, outer, max_body, contract)


def _decoded(raw: bytes, outer: Mapping[str, Any], max_body: int, contract: type[Envelope]) -> Message | Unreadable:
    headers, envelope = as_object(outer.get("headers")), None
    try:
        envelope = read_envelope(outer, headers)
        request = contract.parse(envelope)
        wire = _wire(request, max_body)
        eta, expires = read_time(headers, "eta"), read_time(headers, "expires")
    except ContractViolation as invalid:
        return _message(raw, outer, headers, envelope, violations=tuple(invalid.violations))
    except BrokenMessageError as broken:
        envelope = guess_envelope(outer) if envelope is None else envelope
        if envelope is None and broken.violation.field == "body" and (found := recover(raw)):
            return _answerable(found, raw, broken)
        return _message(raw, outer, headers, envelope, violations=(broken.violation,), too_large=broken.too_large)
    terms, media = Terms.of(request), media_of(request.body.media)
    return _message(raw, outer, headers, envelope, terms=terms, body=wire, media=media, eta=eta, expires=expires)


def _message(
    raw: bytes, outer: Mapping[str, Any], headers: Mapping[str, Any], envelope: object, **found: Any
) -> Message | Unreadable:
    identity, given = identify(outer, headers, envelope), as_object(envelope)
    if identity is None:
        return Unreadable("no id: neither headers.id nor properties.correlation_id nor request_id can be read")
    if identity.derived and not found.get("violations"):
        violation = Violation(field="headers.id", message=DERIVED_RULE, type="message")
        found = {"violations": (violation,)}
    traceparent = _traceparent(given, headers)
    return Message(
        identity=identity,
        fingerprint=fingerprint(given["body"] if "body" in given else read_whole(raw).get("body")),
        headers=_kept_headers(headers),
        traceparent=traceparent,
        trace_id=_trace_id(traceparent),
        **found,
    )


def salvage(raw: bytes) -> Message | Unreadable:
    """The owner of a message that is answered undecoded, found in its text. Never raises."""
    lost = BrokenMessageError("body", "was lost with every worker that took it")
    return _recovered(raw, lost)


def _recovered(raw: bytes, broken: BrokenMessageError, *, dead_letter_reason: str = "") -> Message | Unreadable:
    """For a message that is not to be parsed: somebody may still wait for the id in it."""
    found = recover(raw)
    if found is None:
        return Unreadable(f"{dead_letter_reason}, and no id can be read in it")
    return _answerable(found, raw, broken, dead_letter_reason=dead_letter_reason)


def _answerable(found: Identity, raw: bytes, broken: BrokenMessageError, *, dead_letter_reason: str = "") -> Message:
    return Message(
        identity=found,
        fingerprint=hashlib.sha256(raw).hexdigest(),
        violations=(broken.violation,),
        too_large=broken.too_large,
        dead_letter_reason=dead_letter_reason,
        trace_id=_trace_id(None),
    )


def _wire(request: Envelope, max_body: int) -> bytes:
    wire = msgspec.json.encode(request.wire_body())
    if len(wire) > max_body:
        raise _oversized(max_body)
    return bytes(memoryview(wire))  # msgspec's own has its whole buffer behind it, up to half as large again


def _oversized(max_body: int) -> BrokenMessageError:
    return BrokenMessageError("body", f"must stay under {max_body} bytes (WORKER_MAX_BODY)", too_large=True)


def _why_dead(size: int, max_body: int) -> str:
    kept = "" if size <= KEPT_WHOLE else f"; only its first and last {EDGE // 1024} KiB are kept"
    return f"{size} bytes are too large for WORKER_MAX_BODY = {max_body}{kept}"


def _kept_headers(headers: Mapping[str, Any]) -> Mapping[str, str]:
    given = {name: headers.get(name) for name in _HEADERS}
    return {name: text for name, text in given.items() if isinstance(text, str) and len(text) <= _LONGEST_HEADER}


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
