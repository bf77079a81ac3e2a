"""What went wrong with one upstream call -> Failure: the closed code, the route, and what the caller is told.

    Failure     route       means
    rejected    ANSWER      asking again changes nothing: publish it
    broken      RETRY       an attempt was spent; the request comes back after backoff (`retries.py`)
    throttled   THROTTLE    the upstream pauses for everybody; no attempt spent
    locked out  CREDENTIAL  the key is refused or its wallet empty: the credential pauses; no attempt spent

`error_reader.py` reads what the upstream said, `error_classifier.py` judges it; here the verdict gets its consequences.
Nothing here raises, whatever arrives. Upstream's text is kept apart in `Failure.upstream`; `message` is ours.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from http import HTTPStatus
from typing import Final, LiteralString, cast

from api_contracts.errors import ErrorCode, MappedError, UpstreamError
from api_contracts.violations import Violation
from worker.failures.error_classifier import Limit, Scope, judge, limit_named
from worker.failures.error_quotes import quoted
from worker.failures.error_reader import (
    ReportedError,
    lowered,
    parse_retry_after,
    read_body,
    read_error,
    server_time,
    stated_error,
    unwrapped,
    wait_in_words_s,
    was_billed,
)

COSTLY_ATTEMPTS: Final = 2
"""A call that may have been billed is made once more and no further: there is no idempotency key upstream."""
NO_CHANNEL_ATTEMPTS: Final = 3
"""A gateway without a channel for the model gets one back within minutes, or not before somebody acts."""


class Route(StrEnum):
    """What becomes of the request; THROTTLE and CREDENTIAL spend no attempt."""

    ANSWER = "answer"
    RETRY = "retry"
    THROTTLE = "throttle"
    CREDENTIAL = "credential"


class TransportKind(StrEnum):
    """How a call failed without an answer."""

    UNREACHABLE = "unreachable"
    """DNS, TLS or the connection itself failed: nothing was sent."""
    CONNECT_TIMEOUT = "connect_timeout"
    POOL_TIMEOUT = "pool_timeout"
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
    """Why one call, or one request, came to nothing, and what follows. Its repr holds no upstream text."""

    code: ErrorCode
    route: Route
    message: str
    """One sentence from a closed set; never upstream's words, which may quote a prompt."""
    retryable: bool
    """Whether *enqueueing* again can help; what the worker itself does next is `route`."""
    http_status: int | None = None
    upstream: UpstreamError | None = field(default=None, repr=False)
    retry_after_s: float | None = None
    """The shortest wait the upstream asked for."""
    max_attempts: int | None = None
    """This failure's own ceiling on upstream calls, beneath the request's."""
    maybe_billed: bool = False
    response: bytes | None = field(default=None, repr=False)
    """The response object to attach, as upstream sent it."""
    limit: Limit | None = None
    scope: Scope = "unknown"
    """Whose trouble it is: this request's, the account's, the model's; the evidence may not tell."""
    slow_down: bool = False
    """The upstream asks for a lower rate, not only for a pause."""

    @classmethod
    def of(cls, code: ErrorCode) -> "Failure":
        """The failure a code stands for, before anything is known of the case; every code has one."""
        return _PLAIN[code]

    def mapped(self, violations: Iterable[Violation] = ()) -> MappedError:
        """The caller's view of it."""
        return MappedError(
            code=self.code,
            message=self.message,
            retryable=self.retryable,
            http_status=self.http_status,
            upstream=self.upstream,
            violations=list(violations),
        )


_CONSEQUENCES: Final = (
    (ErrorCode.INVALID_REQUEST, Route.ANSWER, False, "The request is not valid."),
    (ErrorCode.DUPLICATE_CONFLICT, Route.ANSWER, False, "The request id belongs to a different request."),
    (ErrorCode.CONTEXT_LENGTH_EXCEEDED, Route.ANSWER, False, "The input is longer than the model can take."),
    (ErrorCode.REQUEST_TOO_LARGE, Route.ANSWER, False, "The request is larger than the limits allow."),
    (ErrorCode.CONTENT_REJECTED, Route.ANSWER, False, "A content filter refused the input or the output."),
    (ErrorCode.MODEL_UNAVAILABLE, Route.ANSWER, False, "The upstream does not serve this model."),
    (ErrorCode.AUTHENTICATION_FAILED, Route.CREDENTIAL, True, "The upstream refused our credential."),
    (ErrorCode.PERMISSION_DENIED, Route.ANSWER, False, "The upstream does not let our credential do this."),
    (ErrorCode.QUOTA_EXHAUSTED, Route.CREDENTIAL, True, "The upstream account has no quota left."),
    (ErrorCode.RATE_LIMITED, Route.THROTTLE, True, "The upstream is limiting our rate."),
    (ErrorCode.UPSTREAM_OVERLOADED, Route.RETRY, True, "The upstream is overloaded."),
    (ErrorCode.UPSTREAM_ERROR, Route.RETRY, True, "The upstream failed."),
    (ErrorCode.UPSTREAM_TIMEOUT, Route.RETRY, True, "The upstream did not answer in time."),
    (ErrorCode.UPSTREAM_UNREACHABLE, Route.RETRY, True, "The upstream could not be reached."),
    (ErrorCode.INVALID_RESPONSE, Route.RETRY, True, "The upstream's answer is not a usable response."),
    (ErrorCode.INCOMPLETE_MAX_TOKENS, Route.ANSWER, False, "The response ended at its token limit."),
    (ErrorCode.DEADLINE_EXCEEDED, Route.ANSWER, False, "The deadline left no time for an answer."),
    (ErrorCode.CANCELLED, Route.ANSWER, False, "The request was cancelled."),
    (ErrorCode.INTERNAL_ERROR, Route.ANSWER, True, "The worker failed; this is a defect of ours."),
)
_COSTLY: Final = frozenset({ErrorCode.UPSTREAM_TIMEOUT, ErrorCode.INVALID_RESPONSE})
_PLAIN: Final = {
    code: Failure(
        code=code,
        route=route,
        retryable=retryable,
        message=message,
        maybe_billed=code in _COSTLY,
        max_attempts=COSTLY_ATTEMPTS if code in _COSTLY else None,
    )
    for code, route, retryable, message in _CONSEQUENCES
}

_UNREACHABLE: Final = Failure.of(ErrorCode.UPSTREAM_UNREACHABLE)
_TIMED_OUT: Final = Failure.of(ErrorCode.UPSTREAM_TIMEOUT)
_TRANSPORT: Final = {
    TransportKind.UNREACHABLE: _UNREACHABLE,
    TransportKind.CONNECT_TIMEOUT: _UNREACHABLE,
    TransportKind.POOL_TIMEOUT: _UNREACHABLE,
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
    """The failure behind any answer that is not 2xx. Total and bounded, whatever the bytes."""
    if status in range(300, 400):
        return replace(_REDIRECTED, http_status=status)
    return _from_evidence(read_body(status, body), status, headers)


def from_object(response: object, raw: bytes, headers: Mapping[str, str]) -> Failure | None:
    """The failure inside a decoded HTTP 200 body or terminal SSE event; None means completed and usable.

    `raw` is the response object as sent; it is attached where the caller can use it: to what is incomplete,
    and to what is not final. An `incomplete` for a reason nobody knows was paid for, so it counts as cut off.
    """
    body = unwrapped(response)
    if body is None:
        return invalid_response("not an object", 200)
    if (error := stated_error(body)) is not None:
        failure = _from_evidence(read_error(error), None, headers)
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
    """An answer that cannot be used; `reason` completes the sentence, in words of ours."""
    plain = Failure.of(ErrorCode.INVALID_RESPONSE)
    return replace(plain, http_status=http_status, message=f"{plain.message[:-1]}: {reason}.")


def deadline_exceeded(last: Failure | None = None) -> Failure:
    """The end of a request whose time is up, with the last thing the upstream said attached."""
    plain = Failure.of(ErrorCode.DEADLINE_EXCEEDED)
    return replace(plain, http_status=last.http_status, upstream=last.upstream) if last else plain


def _incomplete(body: dict[str, object]) -> ErrorCode:
    details = body.get("incomplete_details")
    reason = cast("dict[str, object]", details).get("reason") if isinstance(details, dict) else None
    return ErrorCode.CONTENT_REJECTED if reason == "content_filter" else ErrorCode.INCOMPLETE_MAX_TOKENS


def _from_evidence(evidence: ReportedError, http_status: int | None, headers: Mapping[str, str]) -> Failure:
    said = lowered(headers)
    wait_s = _wait_s(evidence, said)
    verdict = judge(evidence, wait_stated=wait_s is not None)
    failure = replace(
        Failure.of(verdict.code),
        http_status=200 if http_status is None else http_status,
        upstream=quoted(evidence, said),
        retry_after_s=wait_s,
        scope=verdict.scope,
        limit=limit_named(evidence) if verdict.code in _ABOUT_LIMITS else None,
        slow_down="slow_down" in evidence.names,
    )
    judged = _overruled(_by_status(failure, evidence.status), said, by_status=verdict.by_status)
    return costly(judged) if verdict.answer_lost else judged


def _wait_s(evidence: ReportedError, headers: Mapping[str, str]) -> float | None:
    """The wait asked for in headers, else in words: new-api drops Retry-After."""
    asked_s = parse_retry_after(headers, server_time(headers))
    return wait_in_words_s(evidence.text) if asked_s is None else asked_s


_ABOUT_LIMITS: Final = frozenset({ErrorCode.RATE_LIMITED, ErrorCode.REQUEST_TOO_LARGE})


def _by_status(failure: Failure, status: int | None) -> Failure:
    """The two codes that mean different things under different statuses."""
    if failure.code is ErrorCode.MODEL_UNAVAILABLE and status == HTTPStatus.SERVICE_UNAVAILABLE:
        return replace(failure, route=Route.RETRY, retryable=True, max_attempts=NO_CHANNEL_ATTEMPTS)
    if failure.code is ErrorCode.INVALID_RESPONSE:  # a redirect, or a status nobody sends: no call was made
        return replace(failure, route=Route.ANSWER, max_attempts=None, maybe_billed=False)
    return failure


def _overruled(failure: Failure, headers: Mapping[str, str], *, by_status: bool) -> Failure:
    """`x-should-retry` changes what we do, never what we tell (openai-python `_base_client.py` obeys it too).

    It has no say in pauses, which protect the fleet, nor where the body names a fault of the caller's.
    """
    told = headers.get("x-should-retry", "").strip().lower()
    if told == "false" and failure.route is Route.RETRY:
        return replace(failure, route=Route.ANSWER)
    refused_by_status = by_status and failure.http_status in range(400, 500)
    if told == "true" and failure.route is Route.ANSWER and refused_by_status:
        return replace(failure, route=Route.RETRY)
    return failure
