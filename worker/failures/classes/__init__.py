"""Each failure class once: its effect on a request, its report to the caller and Sentry, and its runbook entry.

To add one: name it in `api_contracts.errors.ErrorCode` (or `State` in `model`), then add its row to one of

    callers     the caller, or nobody, is at fault
    upstream    the gateway, or the account at the gateway
    ours        the worker, its Redis, its budget and its operators

The import fails while a name has no row. Messages, routes, Sentry events, trace statuses, zero rows of metrics and
runbook pages follow from the row. Fingerprints of issues hold the name and the upstream; they never hold message
text, request id, tenant or HTTP status.
"""

from collections.abc import Mapping
from typing import Final

from api_contracts.errors import ErrorCode
from worker.failures.classes import callers, ours, upstream
from worker.failures.classes.model import (
    ErrorClass,
    FailureClass,
    Fault,
    Kind,
    Route,
    RunbookEntry,
    SentryLevel,
    State,
)

__all__ = [
    "ERRORS",
    "FAILURES",
    "ErrorClass",
    "FailureClass",
    "Fault",
    "Kind",
    "Route",
    "RunbookEntry",
    "SentryLevel",
    "State",
    "fault",
    "trace_status",
]

_ERRORS: Final = {**callers.ERRORS, **upstream.ERRORS, **ours.ERRORS}
_STATES: Final = {**callers.STATES, **upstream.STATES, **ours.STATES}

ERRORS: Final[Mapping[ErrorCode, ErrorClass]] = {code: _ERRORS[code] for code in ErrorCode}
FAILURES: Final[Mapping[Kind, FailureClass]] = {**ERRORS, **{state: _STATES[state] for state in State}}
"""Every failure class."""


def fault(code: str) -> Fault:
    """The party at fault for a result with this error code; `none` for a result without one."""
    return ERRORS[ErrorCode(code)].fault if code else "none"


def trace_status(code: str) -> str:
    """The span status for an error code; `ok` without one, `internal_error` for a code that is not known."""
    return _TRACE_STATUS.get(code, "internal_error")


_TRACE_STATUS: Final = {"": "ok"} | {str(code): row.trace_status for code, row in ERRORS.items()}
