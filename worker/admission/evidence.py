"""What one call says of the upstream. Pure.

A failure counts against the upstream only where it is the upstream's own: a request that the gateway rejects for its
content says that the gateway works.
"""

from dataclasses import dataclass
from typing import Final

from api_contracts import ErrorCode
from worker.admission.grants import Gate, UpstreamVerdict
from worker.failures.failure import Failure, Route
from worker.gateway.upstream import Answer, Call

UPSTREAM_FAILURES: Final = frozenset(
    {
        ErrorCode.UPSTREAM_ERROR,
        ErrorCode.UPSTREAM_OVERLOADED,
        ErrorCode.UPSTREAM_TIMEOUT,
        ErrorCode.UPSTREAM_UNREACHABLE,
    }
)
"""Failures that count towards the breaker: every caller would meet them."""

_SILENT: Final = frozenset({ErrorCode.PERMISSION_DENIED, ErrorCode.CANCELLED})
"""Failures that say nothing of the upstream: the first is about our account, the second is our own doing."""

_GATES: Final[dict[ErrorCode, Gate]] = {ErrorCode.QUOTA_EXHAUSTED: "quota_exhausted"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    sent: bool = True
    """Whether the gateway may have counted the call."""
    answered: bool = False
    used_tokens: int | None = None
    """None: unknown, so the whole reservation counts as used."""
    verdict: UpstreamVerdict = ""
    throttled: bool = False
    retry_after_s: float | None = None
    gate: Gate = ""
    """The gate to shut, or to keep shut."""
    code: str = ""
    """Why."""


def evidence_of(call: Call, *, gate: Gate = "") -> Evidence:
    """What `call` says; `gate` is the gate that it probed, if it was a probe."""
    outcome = call.outcome
    if isinstance(outcome, Answer):
        return Evidence(answered=True, used_tokens=outcome.usage.total_tokens if outcome.usage else None, verdict="ok")
    verdict = _verdict(outcome)
    return Evidence(
        sent=outcome.code is not ErrorCode.UPSTREAM_UNREACHABLE,
        verdict=verdict,
        throttled=outcome.route is Route.THROTTLE,
        retry_after_s=outcome.retry_after_s,
        gate=_gate(outcome) or (gate if verdict == "failed" else ""),
        code=outcome.code,
    )


def _verdict(failure: Failure) -> UpstreamVerdict:
    if failure.code in UPSTREAM_FAILURES:
        return "failed"
    return "ok" if failure.route is Route.ANSWER and failure.code not in _SILENT else ""


def _gate(failure: Failure) -> Gate:
    return _GATES.get(failure.code, "authentication_failed") if failure.route is Route.CREDENTIAL else ""
