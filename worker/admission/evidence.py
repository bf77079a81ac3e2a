"""Reads a finished call into what it says of the upstream; pure.

A call is evidence about the fleet only where it says something of the gateway, the key or the wallet. What it says of
one request stays with the request, and our own clock says nothing. Whether the fleet believes a refusal is decided by
the script (`lua/evidence.lua`).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, Literal

from api_contracts import ErrorCode
from worker.failures.failure import Failure, Route
from worker.gateway.upstream import Answer, Call

Verdict = Literal[
    "ok",
    "answered",
    "throttled",
    "overloaded",
    "failed",
    "authentication",
    "quota",
    "unclear",
    "cut_short",
    "unsent",
]
"""The meaning of a call: `answered` says something of the request only, `unclear` nothing of the upstream's health,
`cut_short` was ended by our own clock, and `unsent` was never made."""

TROUBLES: Final[Mapping[ErrorCode, Verdict]] = {
    ErrorCode.RATE_LIMITED: "throttled",
    ErrorCode.AUTHENTICATION_FAILED: "authentication",
    ErrorCode.QUOTA_EXHAUSTED: "quota",
    ErrorCode.UPSTREAM_OVERLOADED: "overloaded",
    ErrorCode.UPSTREAM_ERROR: "failed",
    ErrorCode.UPSTREAM_TIMEOUT: "failed",
    ErrorCode.UPSTREAM_UNREACHABLE: "failed",
}
"""The gateway's own troubles, and the account's."""

OF_THE_REQUEST: Final = frozenset({"request", "model"})
"""Scopes of trouble that the fleet does not share; retries of such a request are bounded by its attempts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """The end of one reservation."""

    verdict: Verdict
    used_tokens: int
    called: bool = True
    """False where the request never reached the gateway: the whole reservation is given back."""
    retry_after_s: float = 0.0
    """The shortest wait the gateway asked for; 0 where it named none."""
    code: str = ""
    """The error code of the call."""
    limit_rpm: float | None = None
    """Requests a minute, as a header of an answer names them."""
    took_ms: int | None = None
    """The time that the gateway took for a good answer. The way to Redis is no part of it, however slow."""


NEVER_CALLED: Final = Evidence(verdict="unsent", used_tokens=0, called=False)


def read(call: Call | None, *, reserved: int) -> Evidence:
    """The evidence of `call`, for `reserved` tokens; None is a call that was never made."""
    if call is None:
        return NEVER_CALLED
    outcome = call.outcome
    if isinstance(outcome, Answer):
        used = outcome.usage.total_tokens if outcome.usage else reserved
        return Evidence(verdict="ok", used_tokens=used, limit_rpm=_limit(call.headers), took_ms=call.duration_ms)
    return Evidence(
        verdict=_verdict(outcome),
        used_tokens=reserved,
        called=outcome.code is not ErrorCode.UPSTREAM_UNREACHABLE,
        retry_after_s=outcome.retry_after_s or 0.0,
        code=outcome.code,
    )


def _verdict(failure: Failure) -> Verdict:
    if failure.code is ErrorCode.CANCELLED or _ran_out_of_time(failure):
        return "cut_short"
    if getattr(failure, "scope", "unknown") in OF_THE_REQUEST:
        return "answered"
    if failure.code in TROUBLES:
        return TROUBLES[failure.code]
    # A forbidden call shows that the key is known, and not that anybody else would be served.
    told = failure.route is Route.ANSWER and failure.code is not ErrorCode.PERMISSION_DENIED
    return "answered" if told else "unclear"


def _ran_out_of_time(failure: Failure) -> bool:
    """Whether our clock ended the call: it never says more than that, before an answer or in the midst of one."""
    no_error_came = failure.upstream is None and (failure.http_status or HTTPStatus.OK) < HTTPStatus.MULTIPLE_CHOICES
    return failure.code is ErrorCode.UPSTREAM_TIMEOUT and no_error_came


def _limit(headers: Mapping[str, str]) -> float | None:
    try:
        limit = float(headers.get("x-ratelimit-limit-requests") or 0)
    except ValueError:
        return None
    return limit if math.isfinite(limit) and limit > 0 else None
