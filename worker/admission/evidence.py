"""Reads a finished call into what it says of the upstream; pure.

A call is evidence about the fleet only where it says something of the gateway, the key or the wallet. What it says of
one request stays with the request.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from api_contracts import ErrorCode
from worker.admission.grants import Gate
from worker.failures.failure import Failure, Route
from worker.gateway.upstream import Answer, Call

Health = Literal["ok", "failed", ""]
"""Of the upstream, as one call shows it; empty where the call only says something of its request."""

UPSTREAM_FAILURES: Final = frozenset(
    {
        ErrorCode.UPSTREAM_ERROR,
        ErrorCode.UPSTREAM_OVERLOADED,
        ErrorCode.UPSTREAM_TIMEOUT,
        ErrorCode.UPSTREAM_UNREACHABLE,
    }
)
"""The gateway's own troubles, whichever request met them: they count towards the breaker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What one reservation came to."""

    used_tokens: int
    called: bool = True
    """False where the request never reached the gateway: the whole reservation is given back."""
    health: Health = ""
    throttled: bool = False
    retry_after_s: float = 0.0
    """The shortest wait the gateway asked for; 0 where it named none."""
    gate: Gate = ""
    """The gate that this call shuts, or keeps shut."""
    code: str = ""
    """With `gate`: the error code of the call."""
    limit_rpm: float | None = None
    """Requests a minute, as a header of an answer names them."""


NEVER_CALLED: Final = Evidence(used_tokens=0, called=False)


def read(call: Call | None, *, reserved: int, probing: Gate = "") -> Evidence:
    """What `call` says, for `reserved` tokens; None is a call that was never made.

    A call that this process broke off itself may have used all it reserved, and says nothing of the upstream.

    `probing` is the gate that the call tried, if it was a probe.
    """
    if call is None:
        return NEVER_CALLED
    outcome = call.outcome
    if isinstance(outcome, Answer):
        used = outcome.usage.total_tokens if outcome.usage else reserved
        return Evidence(used_tokens=used, health="ok", limit_rpm=_limit(call.headers))
    gate = _gate(outcome, probing)
    return Evidence(
        used_tokens=reserved,
        called=outcome.code is not ErrorCode.UPSTREAM_UNREACHABLE,
        health=_health(outcome),
        throttled=outcome.route is Route.THROTTLE,
        retry_after_s=outcome.retry_after_s or 0.0,
        gate=gate,
        code=outcome.code if gate else "",
    )


def _health(failure: Failure) -> Health:
    if failure.code in UPSTREAM_FAILURES:
        return "failed"
    return "ok" if failure.route is Route.ANSWER and failure.code is not ErrorCode.PERMISSION_DENIED else ""


def _gate(failure: Failure, probing: Gate) -> Gate:
    """A credential shuts its gate at once; a broken gateway keeps the gate shut that a probe tried."""
    if failure.route is Route.CREDENTIAL:
        return "quota_exhausted" if failure.code is ErrorCode.QUOTA_EXHAUSTED else "authentication_failed"
    return probing if failure.route is not Route.THROTTLE and failure.code in UPSTREAM_FAILURES else ""


def _limit(headers: Mapping[str, str]) -> float | None:
    try:
        limit = float(headers.get("x-ratelimit-limit-requests") or 0)
    except ValueError:
        return None
    return limit if math.isfinite(limit) and limit > 0 else None
