"""One failed call -> Failure: the error code, the route, and the message for the caller.

    ANSWER      another call changes nothing: publish it
    RETRY       an attempt was spent; the request comes back after a backoff (`retries.py`)
    THROTTLE    the upstream pauses for everybody; no attempt spent
    CREDENTIAL  the key is refused or its wallet empty: the credential pauses; no attempt spent

`error_reader` reads the upstream's error and `error_classifier` finds its code; `classes` holds what the code implies.
Nothing here raises, whatever bytes arrive. The upstream's text is kept apart in `Failure.upstream`; `message` is ours.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from http import HTTPStatus
from typing import Final, LiteralString, cast

from api_contracts.errors import ErrorCode, MappedError, UpstreamError
from api_contracts.violations import Violation
from worker.failures.classes import ERRORS, Route
from worker.failures.error_classifier import Limit, Scope, judge, limit_named
from worker.failures.error_quotes import quoted
from worker.failures.error_reader import (
    ReportedError,
    lowered,
    parse_retry_after,
    read_body,
    read_error,
    server_time,
    wait_in_words_s,
)
from worker.failures.stated_error import stated_error, unwrapped, was_billed

COSTLY_ATTEMPTS: Final = 2
"""A call that may have been billed is repeated at most once: the gateway has no idempotency key."""
NO_CHANNEL_ATTEMPTS: Final = 3
"""A gateway without a channel for the model gets one back within minutes, or needs an operator."""


class TransportKind(StrEnum):
    """The way in which a call failed without an answer."""

    UNREACHABLE = "unreachable"
    """DNS, TLS or the connection itself failed: nothing was sent."""
    CONNECT_TIMEOUT = "connect_timeout"
    WRITE_TIMEOUT = "write_timeout"
    """The request never left completely, so it cannot have run."""
    RESET = "reset"
    """The connection broke after the request was sent."""
    STALE = "stale"
    """A kept connection broke at once after the request was sent: the upstream had closed it meanwhile."""
    READ_TIMEOUT = "read_timeout"
    TOTAL_TIMEOUT = "total_timeout"
    CUT_SHORT = "cut_short"
    """A stream without its terminal event, or a body shorter than promised."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One failed call or request, and the next step. Its repr holds no upstream text."""

    code: ErrorCode
    route: Route
    message: str
    """One sentence from a closed set. Never the upstream's words: they may quote a prompt."""
    retryable: bool
    """Whether *enqueueing* again can help its caller. `route` is the worker's own next step."""
    http_status: int | None = None
    upstream: UpstreamError | None = field(default=None, repr=False)
    retry_after_s: float | None = None
    """The shortest wait the upstream asked for."""
    max_attempts: int | None = None
    """A limit on upstream calls for this failure; the lower one of this and the request's own limit holds."""
    maybe_billed: bool = False
    response: bytes | None = field(default=None, repr=False)
    """The response object to attach, as the upstream sent it."""
    limit: Limit | None = None
    """The limit that was met, if the upstream named it."""
    violations: tuple[Violation, ...] = ()
    """The places at which an output breaks its schema."""
    scope: Scope = "unknown"
    """The owner of the trouble: this request's, the account's, the model's; the error may not tell."""

    @classmethod
    def of(cls, code: ErrorCode) -> "Failure":
        """The failure of a class, before any fact of the case is added; every code has one."""
        return _PLAIN[code]

    def mapped(self, violations: Iterable[Violation] = ()) -> MappedError:
        """The caller's view of the failure."""
        return MappedError(
            code=self.code,
            message=self.message,
            retryable=self.retryable,
            http_status=self.http_status,
            upstream=self.upstream,
            violations=[*violations, *self.violations],
        )


_PLAIN: Final = {
    code: Failure(
        code=code,
        route=row.route,
        retryable=row.retryable,
        message=row.message,
        maybe_billed=row.costly,
        max_attempts=COSTLY_ATTEMPTS if row.costly else None,
    )
    for code, row in ERRORS.items()
}

_UNREACHABLE: Final = Failure.of(ErrorCode.UPSTREAM_UNREACHABLE)
_TIMED_OUT: Final = Failure.of(ErrorCode.UPSTREAM_TIMEOUT)
_TRANSPORT: Final = {
    TransportKind.UNREACHABLE: _UNREACHABLE,
    TransportKind.CONNECT_TIMEOUT: _UNREACHABLE,
    TransportKind.WRITE_TIMEOUT: replace(_TIMED_OUT, maybe_billed=False, max_attempts=None),
    TransportKind.RESET: replace(Failure.of(ErrorCode.UPSTREAM_ERROR), maybe_billed=True, max_attempts=COSTLY_ATTEMPTS),
    TransportKind.STALE: replace(Failure.of(ErrorCode.UPSTREAM_ERROR), maybe_billed=True),
    TransportKind.READ_TIMEOUT: _TIMED_OUT,
    TransportKind.TOTAL_TIMEOUT: _TIMED_OUT,
    TransportKind.CUT_SHORT: Failure.of(ErrorCode.INVALID_RESPONSE),
}


def from_transport(kind: TransportKind) -> Failure:
    """The failure of a call that got no answer."""
    return _TRANSPORT[kind]


_REDIRECTED: Final = replace(
    Failure.of(ErrorCode.INVALID_RESPONSE),
    route=Route.ANSWER,
    max_attempts=None,
    maybe_billed=False,
    message="The upstream answers with a redirect: WORKER_UPSTREAM_URL must name the address it points to.",
)
"""Never followed: it would carry the key elsewhere, and turns a POST into a GET at many clients."""


def costly(failure: Failure) -> Failure:
    """The same failure of a call that was paid for, at least in part: it is made once more and no further.

    A throttled call spends no attempt, because it cost nothing. One that was throttled midway did.
    """
    allowed = min(failure.max_attempts or COSTLY_ATTEMPTS, COSTLY_ATTEMPTS)
    route = Route.RETRY if failure.route is Route.THROTTLE else failure.route
    return replace(failure, maybe_billed=True, max_attempts=allowed, route=route)


def from_http(status: int, headers: Mapping[str, str], body: bytes) -> Failure:
    """The failure of an answer that is not 2xx. Never raises; the work is bounded, whatever the bytes."""
    if status in range(300, 400):
        return replace(_REDIRECTED, http_status=status)
    return _from_reported(read_body(status, body), status, headers)


def from_object(response: object, raw: bytes, headers: Mapping[str, str]) -> Failure | None:
    """The failure inside a decoded HTTP 200 body or terminal SSE event; None means completed and usable.

    `raw` is the response object as sent. It is attached to incomplete responses and to those that are not final,
    because the caller can use them. An unknown reason for `incomplete` counts as the token limit: it was paid for.
    """
    body = unwrapped(response)
    if body is None:
        return invalid_response("not an object", 200)
    if (error := stated_error(body)) is not None:
        failure = _from_reported(read_error(error), None, headers)
        return costly(failure) if was_billed(body) else failure
    match body.get("status"):
        case "completed":
            return None
        case "incomplete":
            return replace(Failure.of(_incomplete(body)), http_status=200, response=raw)
        case "in_progress" | "queued" | "cancelled":
            return replace(invalid_response("its status is not final", 200), response=raw)
        case _:
            return invalid_response("it has no known status", 200)


def invalid_response(reason: LiteralString, http_status: int) -> Failure:
    """The failure of an answer that cannot be used; `reason` completes the sentence, in words of ours."""
    plain = Failure.of(ErrorCode.INVALID_RESPONSE)
    return replace(plain, http_status=http_status, message=f"{plain.message[:-1]}: {reason}.")


def output_invalid(response: bytes, violation: Violation) -> Failure:
    """The failure of a completed response that breaks the schema that was asked for; the response is attached."""
    plain = Failure.of(ErrorCode.OUTPUT_INVALID)
    return replace(plain, http_status=200, response=response, violations=(violation,))


def deadline_exceeded(last: Failure | None = None) -> Failure:
    """The failure of a request whose time is up, with the upstream's last error attached."""
    plain = Failure.of(ErrorCode.DEADLINE_EXCEEDED)
    return replace(plain, http_status=last.http_status, upstream=last.upstream) if last else plain


def _incomplete(body: dict[str, object]) -> ErrorCode:
    details = body.get("incomplete_details")
    reason = cast("dict[str, object]", details).get("reason") if isinstance(details, dict) else None
    return ErrorCode.CONTENT_REJECTED if reason == "content_filter" else ErrorCode.INCOMPLETE_MAX_TOKENS


def _from_reported(reported: ReportedError, http_status: int | None, headers: Mapping[str, str]) -> Failure:
    said = lowered(headers)
    wait_s = _wait_s(reported, said)
    classified = judge(reported, wait_stated=wait_s is not None)
    failure = replace(
        Failure.of(classified.code),
        http_status=200 if http_status is None else http_status,
        upstream=quoted(reported, said),
        retry_after_s=wait_s,
        scope=classified.scope,
        limit=limit_named(reported) if classified.code in _ABOUT_LIMITS else None,
    )
    known = _overruled(_by_status(failure, reported.status), said, by_status=classified.by_status)
    return costly(known) if classified.answer_lost else known


def _wait_s(reported: ReportedError, headers: Mapping[str, str]) -> float | None:
    """The wait that the headers ask for, else the text: new-api drops Retry-After."""
    asked_s = parse_retry_after(headers, server_time(headers))
    return wait_in_words_s(reported.text) if asked_s is None else asked_s


_ABOUT_LIMITS: Final = frozenset({ErrorCode.RATE_LIMITED, ErrorCode.REQUEST_TOO_LARGE})


def _by_status(failure: Failure, status: int | None) -> Failure:
    """Corrects the two codes whose meaning depends on the HTTP status."""
    if failure.code is ErrorCode.MODEL_UNAVAILABLE and status == HTTPStatus.SERVICE_UNAVAILABLE:
        return replace(failure, route=Route.RETRY, retryable=True, max_attempts=NO_CHANNEL_ATTEMPTS)
    if failure.code is ErrorCode.INVALID_RESPONSE:  # a redirect, or an unknown status: no call was made
        return replace(failure, route=Route.ANSWER, max_attempts=None, maybe_billed=False)
    return failure


def _overruled(failure: Failure, headers: Mapping[str, str], *, by_status: bool) -> Failure:
    """Lets `x-should-retry` change the route, never the code (openai-python `_base_client.py` obeys it too).

    The header does not change pauses, because they protect the fleet. It does not count where the body names a
    fault of the caller's.
    """
    told = headers.get("x-should-retry", "").strip().lower()
    if told == "false" and failure.route is Route.RETRY:
        return replace(failure, route=Route.ANSWER)
    refused_by_status = by_status and failure.http_status in range(400, 500)
    if told == "true" and failure.route is Route.ANSWER and refused_by_status:
        return replace(failure, route=Route.RETRY)
    return failure
